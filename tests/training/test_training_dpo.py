# SPDX-License-Identifier: Apache-2.0
"""Preferences: the loss is TRL's, pairs reach it whole, and what comes out is an adapter that prefers what was chosen."""

import json
import math
from pathlib import Path

import pytest
from tuneyard_api.pod_contract import PrepareFacts, PublishFacts, TrainFacts

torch = pytest.importorskip("torch")

from support import tiny_preferences as tiny  # noqa: E402
from tuneyard_data.loading import Reading, load_splits  # noqa: E402
from tuneyard_data.records import DataFile  # noqa: E402
from tuneyard_data.tokenization import TextTokenizer  # noqa: E402
from tuneyard_trainer.evaluation.preferences import compare_pairs, measure_pairs  # noqa: E402
from tuneyard_trainer.model.loading import Device  # noqa: E402
from tuneyard_trainer.model.world import World  # noqa: E402
from tuneyard_trainer.pod.context import StopRequest  # noqa: E402
from tuneyard_trainer.training.batches import Frame  # noqa: E402
from tuneyard_trainer.training.preferences import PairLosses, without_adapter  # noqa: E402
from tuneyard_trainer.workspace.prepared import Split  # noqa: E402

pytestmark = pytest.mark.torch
CPU = Device(torch.device("cpu"), torch.float32, is_autocast=False)
TRL = json.loads(Path(__file__).with_name("trl_dpo.json").read_text())
AS_PEFT_WARNS = "ignore:.*is_gradient_checkpointing.*:FutureWarning"  # PEFT 0.21, transformers 5


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.write_base(tmp_path_factory.mktemp("preferences") / "base")


@pytest.fixture
def adapted(base):
    import peft

    return peft.get_peft_model(tiny.build_base(base), tiny.build_config())


def split_of(records: list[dict], base: Path, folder: Path) -> Split:
    """The pairs as prepare leaves them."""
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    reading = Reading(format="preference", limit=128, folder=folder)
    loaded = load_splits(
        reading, [DataFile("training", file, "pairs.jsonl")], TextTokenizer(base), lambda _: None
    )
    split = loaded["training"]
    return Split.of(
        [split.read(index) for index in range(2 * len(split))],
        [[2 * i, 2 * i + 1] for i in range(len(split))],
    )


@pytest.mark.filterwarnings(AS_PEFT_WARNS)
@pytest.mark.parametrize("form", ["pairs", "chats", "chats without prompt"])
def test_tokens_loss_and_gradients_are_those_of_trl(base, adapted, tmp_path, form):
    """TRL 1.9.2 computed them once; trl_dpo.py says how."""
    records = {"pairs": tiny.PAIRS, "chats": tiny.CHATS[:1], "chats without prompt": tiny.CHATS[1:]}[form]
    expected = TRL[form]
    split = split_of(records, base, tmp_path)
    for number, record in enumerate(expected["records"]):
        tokens, learned, numbers = split.sequence(number)
        for side, answer in ((1, "chosen_ids"), (2, "rejected_ids")):
            assert tokens[numbers == side].tolist() == record["prompt_ids"] + record[answer]
            assert int(learned[numbers == side].sum()) == len(record[answer])
    tiny.move(adapted)
    losses = PairLosses(adapted, CPU, Frame(), beta=TRL["beta"])
    loss = losses.summed(split, range(len(split))) / losses.counted(split).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected["loss"], rel=1e-5)
    assert tiny.gradients_of(adapted) == pytest.approx(expected["gradients"], rel=1e-4)

    def margins() -> list[float]:
        return measure_pairs(
            losses, split, micro_batch=2, world=World(), stop=StopRequest(raises=False)
        ).margins

    with without_adapter(adapted):
        before = margins()
    scores = compare_pairs(before, margins(), TRL["beta"])
    assert scores.reward_margin == pytest.approx(expected["rewards/margins"], rel=1e-4)
    assert scores.reward_accuracy == pytest.approx(expected["rewards/accuracies"])


@pytest.mark.filterwarnings(AS_PEFT_WARNS)
def test_the_reference_is_the_base_model_and_leaves_the_adapter_as_it_was(base, adapted):
    ids = torch.arange(20)[None]
    tiny.move(adapted)
    adapted.train()
    expected, moved = tiny.build_base(base)(ids).logits, adapted(ids).logits
    with without_adapter(adapted):
        assert not adapted.training
        torch.testing.assert_close(adapted(ids).logits, expected)
    assert adapted.training
    torch.testing.assert_close(adapted(ids).logits, moved)
    assert {name for name, p in adapted.named_parameters() if p.requires_grad} == {
        name for name, _ in adapted.named_parameters() if "lora_" in name
    }


def preferences(count: int) -> list[dict[str, str]]:
    """What is chosen is always red; prompts differ."""
    return [
        {"prompt": f"say number {n} =", "chosen": " red", "rejected": f" the {'cat' if n % 2 else 'moon'}"}
        for n in range(count)
    ]


@pytest.fixture
def dpo_job(tiny_llama, jsonl, job_of):
    def build(records, **changes):
        options = {
            "method": "dpo",
            "dpo": {"beta": 0.2},
            "dataset": {"format": "preference"},
            "training": {"maxSteps": 30, "learningRate": 0.01},
        }
        return job_of(tiny_llama, jsonl(records), **(options | changes))

    return build


@pytest.mark.filterwarnings(AS_PEFT_WARNS)
def test_a_job_learns_to_prefer_what_was_chosen_and_publishes_an_adapter(dpo_job, tiny_llama, pods):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    job, results = dpo_job(preferences(40)), {}
    for stage in ("prepare", "train", "publish"):
        code, results[stage] = pods.run(stage, job)
        assert code == 0, results[stage].failure
    prepared = PrepareFacts.model_validate(results["prepare"].facts)
    assert (prepared.train_records, prepared.train_sequences, prepared.validation_records) == (30, 30, 10)
    assert "training.learningRate 0.01 is high for method dpo; people begin with 5e-6" in prepared.warnings
    assert any("method dpo compares the two answers of each" in each for each in prepared.warnings)
    facts = TrainFacts.model_validate(results["train"].facts)
    assert (
        facts.path_reason
        == "method dpo needs the probability of each answer, with the adapter and without it"
    )
    assert facts.validation_loss < math.log(2) / 2
    scores = facts.evaluation.preferences
    assert (scores.pairs, scores.reward_accuracy, scores.tuned_accuracy) == (10, 1.0, 1.0)
    assert scores.tuned_margin > scores.base_margin
    assert scores.reward_margin == pytest.approx(0.2 * (scores.tuned_margin - scores.base_margin), rel=1e-5)
    published = PublishFacts.model_validate(results["publish"].facts)
    folder = Path(published.path)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), folder)
    split = Split.load(pods.workspace / "prepared/validation.safetensors")
    losses = PairLosses(model, CPU, Frame())
    again = measure_pairs(losses, split, micro_batch=3, world=World(), stop=StopRequest(raises=False))
    assert sum(again.margins) / 10 == pytest.approx(scores.tuned_margin, rel=1e-4)
    assert again.loss == pytest.approx(facts.evaluation.tuned.loss, rel=1e-4)
    card = (folder / "README.md").read_text()
    report = (folder / "report.md").read_text()
    assert "chosen answer preferred, of 10 pairs" in report
    assert "Nats per pair." in report
    for words in ("| preferred the chosen answer |", "| method | dpo |", "| beta | 0.2 |"):
        assert words in card


@pytest.mark.filterwarnings(AS_PEFT_WARNS)
def test_preferences_are_learned_on_a_base_in_4_bits(dpo_job, pods):
    pytest.importorskip("bitsandbytes")
    job = dpo_job(preferences(24), quantization="nf4", training={"maxSteps": 8, "learningRate": 0.01})
    assert pods.run("prepare", job)[0] == 0
    code, result = pods.run("train", job)
    assert code == 0, result.failure
    scores = TrainFacts.model_validate(result.facts).evaluation.preferences
    assert scores.reward_accuracy == 1.0


@pytest.mark.filterwarnings(AS_PEFT_WARNS)
def test_an_interrupted_training_goes_on_to_the_same_adapter(dpo_job, pods, tmp_path):
    """Its reference is no state: it is the base model at every step."""
    job = dpo_job(preferences(24), training={"maxSteps": 4, "learningRate": 0.01})
    assert pods.run("prepare", job)[0] == 0
    first = TrainFacts.model_validate(pods.run("train", job)[1].facts)
    weights = (pods.workspace / "adapter/adapter_model.safetensors").read_bytes()
    (pods.workspace / "results/train.json").unlink()
    newest = max((pods.workspace / "checkpoints").iterdir())
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    again = TrainFacts.model_validate(pods.run("train", job)[1].facts)
    assert again.resumed_from_step == 2
    assert (again.final_loss, again.validation_loss) == (first.final_loss, first.validation_loss)
    assert (pods.workspace / "adapter/adapter_model.safetensors").read_bytes() == weights
