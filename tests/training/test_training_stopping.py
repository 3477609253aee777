# SPDX-License-Identifier: Apache-2.0
"""When a training ends early, and which checkpoint is published; what a GPU is refused for."""

import json
from types import SimpleNamespace

import pytest
from tuneyard_api.job import EarlyStopping
from tuneyard_api.pod_contract import FailureClass, TrainFacts

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from tuneyard_trainer.model.loading import choose_device  # noqa: E402
from tuneyard_trainer.pod.failures import StageFailure  # noqa: E402
from tuneyard_trainer.training.loop import is_patience_lost  # noqa: E402
from tuneyard_trainer.workspace.metrics import read_metrics  # noqa: E402

pytestmark = pytest.mark.torch

PATIENCE = {
    "nothing measured": ([], {"patience": 1}, False),
    "always better": ([3.0, 2.0, 1.0], {"patience": 1}, False),
    "worse once, patience for two": ([3.0, 2.0, 2.5], {"patience": 2}, False),
    "worse twice": ([3.0, 2.0, 2.5, 2.1], {"patience": 2}, True),
    "better again in between": ([3.0, 3.5, 2.9, 3.0], {"patience": 2}, False),
    "better by too little": ([3.0, 2.95, 2.91], {"patience": 2, "min_delta": 0.1}, True),
    "slowly, but better by enough in the end": ([3.0, 2.95, 2.89], {"patience": 2, "min_delta": 0.1}, False),
    "not a number is not better": ([3.0, float("nan")], {"patience": 1}, True),
}


@pytest.mark.parametrize(("losses", "options", "expected"), PATIENCE.values(), ids=PATIENCE.keys())
def test_patience(losses, options, expected):
    measured = dict(enumerate(losses))
    assert is_patience_lost(measured, EarlyStopping(**options)) is expected
    assert is_patience_lost(measured, None) is False


@pytest.fixture
def overfitting(tiny_llama, jsonl, job_of, tmp_path):
    """A job whose validation loss soon rises, however numbers are rounded: its answers are of words that no record teaches."""

    def records(first, words):
        return [
            {"prompt": f"say number {n} =", "completion": f" {words[n * n % 4]} {words[n * 3 % 4]}"}
            for n in range(first, first + 24)
        ]

    data = jsonl(records(0, ["red", "cat", "moon", "hill"]))
    held_out = tmp_path / "validation.jsonl"
    lines = (json.dumps(record) + "\n" for record in records(100, ["rain", "town", "ship", "fox"]))
    held_out.write_text("".join(lines))

    def build(**changes):
        training = {"maxSteps": 40, "learningRate": 0.06, "schedule": "constant"} | changes.pop(
            "training", {}
        )
        checkpoint = {"everySteps": 4, "keep": 1} | changes.pop("checkpoint", {})
        dataset = {"validation": {"path": str(held_out)}, "validationFraction": 0.0}
        return job_of(tiny_llama, data, training=training, checkpoint=checkpoint, dataset=dataset, **changes)

    return build


def train(pods, job):
    assert pods.run("prepare", job)[0] == 0
    code, result = pods.run("train", job)
    assert code == 0, result.failure
    return TrainFacts.model_validate(result.facts)


def validations(pods):
    lines = read_metrics(pods.workspace / "metrics.jsonl")
    return {line["step"]: line["validationLoss"] for line in lines if "validationLoss" in line}


def test_the_best_checkpoint_is_kept_evaluated_and_published(overfitting, pods):
    facts = train(pods, overfitting(training={"earlyStopping": {"patience": 2}}))
    measured = validations(pods)
    best = min(measured, key=measured.__getitem__)
    assert facts.stopped_early
    assert facts.steps == best + 8 < 40
    assert (facts.best_step, facts.validation_loss) == (best, measured[best])
    kept = sorted(path.name for path in (pods.workspace / "checkpoints").iterdir())
    assert kept == [f"step-{best:09d}", f"step-{facts.steps:09d}"]
    checkpoint = load_file(
        pods.workspace / f"checkpoints/step-{best:09d}/parameters-00000-of-00001.safetensors"
    )
    adapter = load_file(pods.workspace / "adapter/adapter_model.safetensors")
    assert {name.replace(".default.", "."): tensor.sum().item() for name, tensor in checkpoint.items()} == {
        name: tensor.sum().item() for name, tensor in adapter.items()
    }
    # The validation records are those of the comparison here: the tuned model is the best one.
    assert facts.evaluation.tuned.loss == pytest.approx(measured[best], abs=1e-5)


def test_a_second_attempt_ends_where_the_first_would_have(overfitting, pods):
    plan = overfitting(training={"earlyStopping": {"patience": 2}}, checkpoint={"keep": 99})
    whole, measured = train(pods, plan), validations(pods)
    (pods.workspace / "results/train.json").unlink()
    for folder in sorted((pods.workspace / "checkpoints").iterdir())[2:]:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    again = train(pods, plan)
    assert again.resumed_from_step == 8
    assert validations(pods) == pytest.approx(measured, abs=1e-4)
    assert (again.steps, again.best_step) == (whole.steps, whole.best_step)


def test_the_last_checkpoint_is_published_when_that_is_asked_for(overfitting, pods):
    facts = train(pods, overfitting(training={"maxSteps": 20}, checkpoint={"publish": "last"}))
    measured = validations(pods)
    assert min(measured, key=measured.__getitem__) < 20
    assert (facts.steps, facts.best_step, facts.stopped_early) == (20, None, False)
    assert facts.validation_loss == measured[20]


def test_a_corrupt_best_checkpoint_is_said_and_the_last_one_published(overfitting, pods):
    plan = overfitting(training={"maxSteps": 20})
    best = train(pods, plan).best_step
    (pods.workspace / "results/train.json").unlink()
    torn = pods.workspace / f"checkpoints/step-{best:09d}/manifest.json"
    torn.write_text(json.dumps(json.loads(torn.read_text()) | {"digests": {"gone": "0"}}))
    facts = train(pods, plan)
    assert (facts.resumed_from_step, facts.best_step) == (20, None)
    assert f"step-{best:09d} is skipped" in facts.warnings[0]


GPUS = {
    "asked for on an old GPU": ("bf16", ["bf16", "fp32"], None),
    "the only one of the runtime": ("auto", ["bf16"], None),
    "left open": ("auto", ["bf16", "fp32"], torch.float32),
}


@pytest.mark.parametrize("case", GPUS.values(), ids=GPUS.keys())
def test_bf16_is_refused_on_a_gpu_that_lacks_it(model_files, jsonl, job_of, monkeypatch, case):
    asked, has, weights = case
    old = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        is_bf16_supported=lambda *, including_emulation: including_emulation,
        get_device_name=lambda: "Tesla T4",
    )
    monkeypatch.setattr("torch.cuda", old)
    runtime = {"accelerator": "nvidia", "precisions": has}
    job = job_of(model_files, jsonl([]), runtime=runtime, training={"precision": asked})
    if weights is not None:
        assert choose_device(job, 0).weights is weights
        return
    with pytest.raises(
        StageFailure, match=r"Tesla T4 has no bfloat16 .* try fp32, or a GPU of the Ampere"
    ) as refused:
        choose_device(job, 0)
    assert refused.value.failure_class is FailureClass.BAD_INPUT
