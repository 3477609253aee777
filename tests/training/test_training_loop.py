# SPDX-License-Identifier: Apache-2.0
"""What must not change a training: accumulation, packing, an interruption, the number of processes."""

import itertools
import json
import math
import shutil
from types import SimpleNamespace

import pytest
from pydantic import ValidationError
from tuneyard_api.evaluation_facts import Scores
from tuneyard_api.pod_contract import EXIT_CODES, FailureClass, TrainFacts

torch = pytest.importorskip("torch")

from tuneyard_trainer.model.loading import Device  # noqa: E402
from tuneyard_trainer.pod.progress import Board  # noqa: E402
from tuneyard_trainer.training.batches import DataOrder, collate  # noqa: E402
from tuneyard_trainer.training.loop import learning_rate  # noqa: E402
from tuneyard_trainer.workspace.metrics import read_metrics  # noqa: E402
from tuneyard_trainer.workspace.prepared import Split  # noqa: E402

pytestmark = pytest.mark.torch
CPU = Device(torch.device("cpu"), torch.float32, is_autocast=False)


def metrics(pods):
    return read_metrics(pods.workspace / "metrics.jsonl")


def losses(pods):
    return [line["loss"] for line in metrics(pods) if "loss" in line]


def train(pods, job):
    """Prepares and trains; the losses of all steps."""
    assert pods.run("prepare", job)[0] == 0
    code, result = pods.run("train", job)
    assert code == 0, result.failure
    return losses(pods)


@pytest.fixture
def job(tiny_llama, training_data, job_of):
    def build(**changes):
        return job_of(tiny_llama, training_data(40), **changes)

    return build


@pytest.fixture
def pods_of(tmp_path, pods):
    """Workspaces beside each other."""

    def build(name):
        (tmp_path / name).mkdir()
        return type(pods)(tmp_path / name)

    return build


def test_accumulation_equals_a_large_batch(job, pods_of):
    """Also where sequences hold different numbers of learned tokens, by which means of means would differ."""
    whole = job(training={"microBatchSize": 4, "gradientAccumulation": 1})
    parts = job(training={"microBatchSize": 1, "gradientAccumulation": 4})
    assert train(pods_of("parts"), parts) == pytest.approx(train(pods_of("whole"), whole), abs=1e-4)


def pods_model(pods):
    from pathlib import Path

    from tuneyard_trainer.workspace.prepared import Index

    return Path(Index.load(pods.workspace).model)


def test_labels_are_the_next_token_and_only_where_learned(job, pods):
    assert pods.run("prepare", job(training={"packing": False}))[0] == 0
    split = Split.load(pods.workspace / "prepared/training.safetensors")
    batch = collate(split, [0, 1], CPU)
    assert batch.bounds is None
    tokens, learned, _ = split.sequence(0)
    expected = [
        int(token) if is_learned else -100 for token, is_learned in zip(tokens, learned, strict=True)
    ][1:]
    assert batch.labels[0, : len(expected)].tolist() == expected
    assert int((batch.labels >= 0).sum()) == int(split.learned_per_sequence()[:2].sum())


@pytest.mark.parametrize("looks", [2, 7, 9])
def test_interrupted_training_continues_with_the_same_losses(job, pods_of, monkeypatch, looks):
    """Wherever SIGTERM is seen first, and with dropout, whose random numbers must go on as well."""
    plan = job(
        training={"maxSteps": 6}, lora={"rank": 4, "alpha": 8, "dropout": 0.2}, checkpoint={"everySteps": 2}
    )
    uninterrupted = pods_of("whole")
    whole = train(uninterrupted, plan)
    stopped = pods_of("stopped")
    assert stopped.run("prepare", plan)[0] == 0
    # The base model is measured already: the looks are the training's.
    shutil.copytree(uninterrupted.workspace / "evaluation", stopped.workspace / "evaluation")
    told = iter([False] * looks + [True] * 99)
    with monkeypatch.context() as patch:
        patch.setattr("tuneyard_trainer.pod.context.StopRequest.__bool__", lambda _: next(told))
        code, result = stopped.run("train", plan)
    assert code == EXIT_CODES[FailureClass.INTERRUPTED]
    assert "continues from" in result.failure.message
    done = len(losses(stopped))
    code, result = stopped.run("train", plan)
    assert code == 0
    facts = TrainFacts.model_validate(result.facts)
    assert facts.resumed_from_step == done < 6
    assert losses(stopped) == pytest.approx(whole, abs=1e-4)
    assert facts.trained_tokens == TrainFacts.model_validate(uninterrupted.result().facts).trained_tokens


def test_torn_checkpoint_is_passed_over_with_a_warning(job, pods, capsys):
    plan = job(training={"maxSteps": 6})
    train(pods, plan)
    (pods.workspace / "results/train.json").unlink()
    kept = sorted(path.name for path in (pods.workspace / "checkpoints").iterdir())
    assert kept == ["step-000000004", "step-000000006"]
    torn = pods.workspace / "checkpoints/step-000000006/parameters-00000-of-00001.safetensors"
    torn.write_bytes(torn.read_bytes()[:-7])
    code, result = pods.run("train", plan)
    assert code == 0
    facts = TrainFacts.model_validate(result.facts)
    assert facts.resumed_from_step == 4
    assert "step-000000006 is skipped" in facts.warnings[0]
    assert (
        "warning: checkpoint step-000000006 is skipped: parameters-00000-of-00001.safetensors is not what was"
        in capsys.readouterr().out
    )


def test_checkpoint_of_another_plan_is_not_used(job, pods):
    train(pods, job())
    other = job(training={"learningRate": 0.02})
    assert pods.run("prepare", other)[0] == 0
    assert TrainFacts.model_validate(pods.run("train", other)[1].facts).resumed_from_step == 0


def break_model(pods):
    """Its weights hold an infinity, as those of a model that diverged."""
    from safetensors.torch import load_file, save_file

    broken = pods.workspace / "broken"
    shutil.copytree(pods_model(pods), broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], math.inf)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    index = pods.workspace / "prepared/index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"model": str(broken)}))


NOT_FINITE = {
    "a step": (
        0.0,
        "step 1: the loss is nan and the gradient's norm nan at learning rate 1; try a lower training.learningRate",
    ),
    "the base model": (
        0.25,
        "the base model, before training: the loss on the held-out records is nan; try training.precision fp32",
    ),
}


@pytest.mark.parametrize(("held_out", "said"), NOT_FINITE.values(), ids=NOT_FINITE.keys())
def test_loss_that_is_not_finite_says_where(job, pods, held_out, said):
    plan = job(training={"learningRate": 1.0, "maxSteps": 3}, dataset={"validationFraction": held_out})
    assert pods.run("prepare", plan)[0] == 0
    break_model(pods)
    code, result = pods.run("train", plan)
    assert code == EXIT_CODES[FailureClass.NON_FINITE_LOSS]
    assert result.failure.message.startswith(said)


@pytest.mark.parametrize(
    ("measurement", "said"),
    [
        (1, "step 2: the loss on the held-out records is inf; try a lower training.learningRate"),
        (2, "step 4: the loss on the held-out records is inf; try a lower training.learningRate"),
        (3, "the tuned model: the loss on the held-out records is inf; try a lower training.learningRate"),
    ],
)
def test_held_out_loss_that_is_not_finite_is_no_bug(job, pods, monkeypatch, measurement, said):
    """The base model is measured first, then validation after steps 2 and 4, then the tuned model."""
    plan = job(training={"maxSteps": 4}, checkpoint={"everySteps": 2})
    assert pods.run("prepare", plan)[0] == 0
    measured = itertools.count()

    def mean_loss(*_, **__):
        return math.inf if next(measured) == measurement else 2.0

    monkeypatch.setattr("tuneyard_trainer.training.loop.mean_loss", mean_loss)
    monkeypatch.setattr("tuneyard_trainer.evaluation.compare.mean_loss", mean_loss)
    code, result = pods.run("train", plan)
    assert code == EXIT_CODES[FailureClass.NON_FINITE_LOSS]
    assert result.failure.message.startswith(said)


@pytest.mark.parametrize(("publish", "shown"), [("best", 2), ("last", 4)])
def test_the_port_says_what_the_training_has_measured(job, pods, monkeypatch, publish, shown):
    """The losses follow each step and each validation; the last word is what the result of the stage says."""
    plan = job(
        training={"maxSteps": 4},
        checkpoint={"everySteps": 2, "publish": publish},
        dataset={"validationFraction": 0.2},
    )
    assert pods.run("prepare", plan)[0] == 0
    losses_by_time = iter([3.0, 1.0, 2.0, 1.5])  # of the base model, after steps 2 and 4, of the tuned model
    monkeypatch.setattr("tuneyard_trainer.training.loop.mean_loss", lambda *_, **__: next(losses_by_time))
    monkeypatch.setattr(
        "tuneyard_trainer.evaluation.compare.mean_loss", lambda *_, **__: next(losses_by_time)
    )
    told = []
    update = Board.update

    def listen(board, **changes):
        told.extend([changes["training"]] if changes.get("training") else [])
        update(board, **changes)

    monkeypatch.setattr(Board, "update", listen)
    # The two speeds are measured at two moments. By this clock a second passes between any two.
    seconds = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr("tuneyard_trainer.training.loop.time", clock)
    code, result = pods.run("train", plan)
    assert code == 0, result.failure
    facts = TrainFacts.model_validate(result.facts)
    assert [each.best_step for each in told] == [None, None, 2, 2, 2, shown]
    assert [each.validation_loss for each in told] == [None, None, 1.0, 1.0, 1.0, 1.0 if shown == 2 else 2.0]
    assert [each.trained_tokens for each in told] == sorted(each.trained_tokens for each in told)
    last = told[-1]
    assert (last.trained_tokens, last.validation_loss) == (facts.trained_tokens, facts.validation_loss)
    assert 0 < told[0].peak_memory_bytes <= facts.peak_memory_bytes
    assert last.tokens_per_second == pytest.approx(facts.tokens_per_second, rel=0.5)


def test_the_last_loss_is_known_without_the_file_of_losses(job, pods):
    """A node that is lost after the last checkpoint may take lines with it that no disk had."""
    plan = job()
    last = train(pods, plan)[-1]
    (pods.workspace / "results/train.json").unlink()
    (pods.workspace / "metrics.jsonl").unlink()
    code, result = pods.run("train", plan)
    assert code == 0
    facts = TrainFacts.model_validate(result.facts)
    assert (facts.resumed_from_step, facts.final_loss) == (4, last)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_facts_are_finite_where_they_are_made(number):
    with pytest.raises(ValidationError, match=r"perplexity\n +Input should be a finite number"):
        Scores(loss=1.0, perplexity=number, exact_match=0.0, rouge_l=0.0, prompts=0)


def test_runtime_for_gpus_never_falls_back_to_cpu(job, pods):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    plan = job(runtime={"accelerator": "nvidia"})
    assert pods.run("prepare", plan)[0] == 0
    code, result = pods.run("train", plan)
    assert code == EXIT_CODES[FailureClass.ACCELERATOR_MISSING]
    assert "sees 0; try the node's driver" in result.failure.message


def test_unknown_target_module_is_answered_with_those_there_are(job, pods):
    plan = job(lora={"targetModules": ["q_proj", "query"]})
    assert pods.run("prepare", plan)[0] == 0
    code, result = pods.run("train", plan)
    assert code == EXIT_CODES[FailureClass.BAD_INPUT]
    assert "are named query; try down_proj, gate_proj, k_proj" in result.failure.message


def test_gradient_checkpointing_changes_no_loss(job, pods_of):
    plain = train(pods_of("plain"), job())
    assert train(pods_of("less"), job(training={"gradientCheckpointing": True})) == pytest.approx(
        plain, abs=1e-5
    )


def test_data_order_visits_every_sequence_once_an_epoch():
    order = DataOrder.of(10, global_batch=4, seed=1, epochs=2.0, max_steps=None)
    seen = [index for step in range(order.steps) for index in order.batch(step)]
    assert order.steps == 5
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    assert order.epochs_after(5) == 2.0


def test_last_batch_of_epochs_may_be_smaller():
    order = DataOrder.of(10, global_batch=4, seed=1, epochs=1.0, max_steps=None)
    assert [len(order.batch(step)) for step in range(order.steps)] == [4, 4, 2]


RATES = {
    "warm-up rises to the peak": ({"schedule": "constant", "warmup_steps": 3}, [0.25, 0.5, 0.75, 1.0, 1.0]),
    "linear ends near zero": ({"schedule": "linear", "warmup_steps": 0}, [1.0, 0.8, 0.6, 0.4, 0.2]),
    "cosine is half way in the middle": (
        {"schedule": "cosine", "warmup_steps": 1},
        [0.5, 1.0, 0.853553, 0.5, 0.146447],
    ),
}


@pytest.mark.parametrize(("changes", "expected"), RATES.values(), ids=RATES.keys())
def test_learning_rate_follows_its_schedule(job, changes, expected):
    training = job().training.model_copy(update={"learning_rate": 1.0, **changes})
    assert [learning_rate(training, step, 5) for step in range(5)] == pytest.approx(expected, abs=1e-6)
