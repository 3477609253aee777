# SPDX-License-Identifier: Apache-2.0
"""Jobs by the fast path of LoRA: the losses, checkpoints and adapters of the plain path."""

import json
from pathlib import Path

import numpy as np
import pytest
from tuneyard_api.pod_contract import EXIT_CODES, FailureClass, PublishFacts, TrainFacts

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from tuneyard_trainer.model.loading import Device, load_model  # noqa: E402
from tuneyard_trainer.model.world import World  # noqa: E402
from tuneyard_trainer.training import loop, losses  # noqa: E402
from tuneyard_trainer.training.losses import fast_path  # noqa: E402
from tuneyard_trainer.workspace.metrics import read_metrics  # noqa: E402
from tuneyard_trainer.workspace.prepared import Split  # noqa: E402

# PEFT 0.21 asks transformers 5 for a property under its old name.
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
CPU = Device(torch.device("cpu"), torch.float32, is_autocast=False)
NEARNESS = {"fp32": 1e-4, "bf16": 0.05}
"""Largest difference of losses, by precision."""


@pytest.fixture
def by_fast_path(monkeypatch):
    """Jobs on CPU take it, uncompiled."""

    def take():
        monkeypatch.setattr(losses, "_why_not", lambda *_: None)
        monkeypatch.setattr(losses, "fast_path", lambda *of, **_: fast_path(*of, is_compiled=False))

    return take


def loss_of(served, held_out):
    """Nats per learned token, record by record."""
    total = 0.0
    for first, end in zip(held_out.records, held_out.records[1:], strict=False):
        tokens = torch.from_numpy(held_out.tokens[first:end].astype(np.int64))[None]
        labels = torch.from_numpy(np.where(held_out.learned[first:end], tokens[0], -100))[None]
        with torch.no_grad():
            logits = served(input_ids=tokens).logits
        total += float(
            torch.nn.functional.cross_entropy(
                logits[0, :-1], labels[0, 1:], ignore_index=-100, reduction="sum"
            )
        )
    return total / held_out.learned_per_sequence().sum()


@pytest.fixture
def llama_job(tiny_llama, training_data, job_of):
    def build(every=2, method="lora", quantization=None, **training):
        return job_of(
            tiny_llama,
            training_data(60),
            method=method,
            quantization=quantization,
            training=training,
            checkpoint={"everySteps": every},
        )

    return build


@pytest.fixture
def run_in(tmp_path, pods):
    def build(name, job, *stages):
        (tmp_path / name).mkdir(exist_ok=True)
        place = type(pods)(tmp_path / name)
        for stage in stages:
            code, result = place.run(stage, job)
            assert code == 0, result.failure
        lines = read_metrics(place.workspace / "metrics.jsonl")
        return place, [line["loss"] for line in lines if "loss" in line]

    return build


@pytest.mark.parametrize("kind", ["lora fp32", "lora bf16", "sft fp32", "sft bf16"])
@pytest.mark.parametrize("steps", [12, pytest.param(50, marks=pytest.mark.long)])
def test_losses_are_those_of_the_plain_path(llama_job, run_in, by_fast_path, kind, steps):
    method, precision = kind.split()
    nearness = NEARNESS[precision]
    job = llama_job(every=steps // 2, method=method, maxSteps=steps, precision=precision)
    plain, expected = run_in("plain", job, "prepare", "train")
    by_fast_path()
    fast, made = run_in("fast", job, "prepare", "train", "publish")
    assert len(made) == steps
    assert made == pytest.approx(expected, abs=nearness)
    assert made[-1] < made[0] - steps / 50, "it learned"
    facts = [
        TrainFacts.model_validate(json.loads((each.workspace / "results/train.json").read_text())["facts"])
        for each in (plain, fast)
    ]
    assert [(each.path, each.path_reason) for each in facts] == [
        ("plain", "it needs an NVIDIA GPU"),
        ("fast", None),
    ]
    assert facts[1].evaluation.tuned.loss == pytest.approx(facts[0].evaluation.tuned.loss, abs=nearness)


def test_a_step_is_begun_before_the_loss_of_the_one_before_is_read(
    llama_job, run_in, by_fast_path, monkeypatch
):
    """A GPU would stand still else. Before checkpoints and measurements nothing is begun."""
    by_fast_path()
    summed, sent, happened = losses.Losses.summed, loop._on_its_way, []

    def begin(self, split, indices):
        happened.append("b" if torch.is_grad_enabled() else "")
        return summed(self, split, indices)

    def send(told):
        known = sent(told)
        return lambda: happened.append("r ") or known()

    monkeypatch.setattr(losses.Losses, "summed", begin)
    monkeypatch.setattr(loop, "_on_its_way", send)
    job = llama_job(every=3, maxSteps=6, globalBatchSize=8, microBatchSize=4)
    _, made = run_in("fast", job, "prepare", "train")
    assert "".join(happened) == "bbbr bbr br bbbr bbr br "
    monkeypatch.setattr(loop.Loop, "_is_measured", lambda _, done: done in range(7))
    _, alone = run_in("alone", job, "prepare", "train")
    assert made == alone, "the same numbers, whenever they are made"


def test_a_job_with_a_base_in_fp8_is_trained_by_the_fast_path_alone(
    llama_job, run_in, by_fast_path, monkeypatch
):
    whole = llama_job(every=6, maxSteps=12)
    job = llama_job(every=6, maxSteps=12, quantization="fp8")
    place, _ = run_in("refused", job, "prepare")
    code, result = place.run("train", job)
    assert code == EXIT_CODES[FailureClass.BAD_INPUT]
    assert (
        "fp8 needs an NVIDIA GPU of the Hopper generation or later, and the training runs on a CPU"
        in result.failure.message
    )
    monkeypatch.setattr("tuneyard_trainer.model.quantized.why_no_fp8", lambda _: None)
    code, result = place.run("train", job)
    assert (
        "fp8 is trained by the fast path alone (got fp8, and it needs an NVIDIA GPU)"
        in result.failure.message
    )
    by_fast_path()
    _, expected = run_in("whole", whole, "prepare", "train")
    fast, made = run_in("fp8", job, "prepare", "train", "publish")
    # The small model has random weights, which amplify what rounding does.
    assert made == pytest.approx(expected, abs=0.3)
    assert made != pytest.approx(expected, abs=1e-3)
    assert made[-1] < made[0] - 0.3, "it learned"
    facts = TrainFacts.model_validate(
        json.loads((fast.workspace / "results/train.json").read_text())["facts"]
    )
    assert facts.path == "fast"
    folder = Path(PublishFacts.model_validate(fast.result().facts).path)
    base = transformers.AutoModelForCausalLM.from_pretrained(job.model.path)
    served = peft.PeftModel.from_pretrained(base, folder).eval()
    held_out = Split.load(fast.workspace / "prepared/validation.safetensors")
    assert loss_of(served, held_out) == pytest.approx(facts.evaluation.tuned.loss, abs=0.3)


def test_an_interrupted_training_continues_with_the_same_losses(llama_job, run_in, by_fast_path, monkeypatch):
    """Also where the plain path begins and the fast path goes on: checkpoints are the same."""
    job = llama_job(maxSteps=6)
    _, expected = run_in("whole", job, "prepare", "train")
    place, _ = run_in("stopped", job, "prepare")
    told = iter([False] * 14 + [True] * 99)
    with monkeypatch.context() as patch:
        patch.setattr("tuneyard_trainer.pod.context.StopRequest.__bool__", lambda _: next(told))
        code, _ = place.run("train", job)
    assert code == EXIT_CODES[FailureClass.INTERRUPTED]
    by_fast_path()
    _, made = run_in("stopped", job, "train")
    facts = TrainFacts.model_validate(place.result().facts)
    assert 0 < facts.resumed_from_step < 6
    assert facts.path == "fast"
    assert made == pytest.approx(expected, abs=1e-4)


def test_the_published_adapter_has_the_evaluated_loss(tiny_llama, llama_job, run_in, by_fast_path):
    by_fast_path()
    job = llama_job(every=10, maxSteps=20)
    place, _ = run_in("fast", job, "prepare", "train")
    facts = TrainFacts.model_validate(place.result().facts)
    _, published = place.run("publish", job)
    folder = Path(PublishFacts.model_validate(published.facts).path)
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama, attn_implementation="eager")
    served = peft.PeftModel.from_pretrained(base, folder).eval()
    held_out = Split.load(place.workspace / "prepared/validation.safetensors")
    assert loss_of(served, held_out) == pytest.approx(facts.evaluation.tuned.loss, abs=1e-4)
    assert facts.evaluation.tuned.loss < facts.evaluation.base.loss - 0.5


def test_the_fused_optimizer_continues_from_a_checkpoint(llama_job, run_in, monkeypatch):
    """A GPU's: its count of steps is on the device. A CPU has one too."""
    real = torch.optim.AdamW
    monkeypatch.setattr(
        torch.optim, "AdamW", lambda parameters, **options: real(parameters, **options | {"fused": True})
    )
    job = llama_job(maxSteps=6)
    _, expected = run_in("whole", job, "prepare", "train")
    place, _ = run_in("stopped", job, "prepare")
    told = iter([False] * 14 + [True] * 99)
    with monkeypatch.context() as patch:
        patch.setattr("tuneyard_trainer.pod.context.StopRequest.__bool__", lambda _: next(told))
        place.run("train", job)
    _, made = run_in("stopped", job, "train")
    assert TrainFacts.model_validate(place.result().facts).resumed_from_step > 0
    assert made == pytest.approx(expected, abs=1e-4)


def test_a_job_whose_model_is_loaded_as_the_product_does_it(tiny_llama, llama_job):
    job = llama_job(maxSteps=1)
    assert fast_path(load_model(tiny_llama, job, CPU, World()), job, CPU, is_compiled=False)
