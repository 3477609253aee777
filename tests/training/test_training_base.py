# SPDX-License-Identifier: Apache-2.0
"""What a training starts from: an earlier adapter, and a base model in fewer bits. All of it for real, on CPU."""

import json
import warnings

import pytest
from tuneyard_api.pod_contract import FailureClass, TrainFacts

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from tuneyard_trainer.model.loading import Device, load_model  # noqa: E402
from tuneyard_trainer.model.world import World  # noqa: E402
from tuneyard_trainer.pod.failures import StageFailure  # noqa: E402
from tuneyard_trainer.workspace.metrics import read_metrics  # noqa: E402

pytestmark = pytest.mark.torch
CPU = Device(torch.device("cpu"), torch.float32, is_autocast=False)
FREE = {"maxPrompts": 1, "maxNewTokens": 1}


@pytest.fixture
def trained(tiny_llama, training_data, job_of, pods, tmp_path):
    """Trains in a workspace of its own; facts and the folder of the adapter."""

    def run(name, **changes):
        (tmp_path / name).mkdir()
        place = type(pods)(tmp_path / name)
        job = job_of(tiny_llama, training_data(40), evaluation=FREE, adapterName=name, **changes)
        facts = {}
        for stage in ("prepare", "train", "publish"):
            code, result = place.run(stage, job)
            assert code == 0, result.failure
            facts[stage] = result.facts
        return TrainFacts.model_validate(facts["train"]), place.workspace / "adapter"

    return run


def tensors(folder):
    return load_file(folder / "adapter_model.safetensors")


def first_loss(folder):
    return next(line["loss"] for line in read_metrics(folder.parent / "metrics.jsonl") if "loss" in line)


def test_training_continues_where_the_earlier_adapter_ended(trained, tmp_path):
    _, former = trained("first", training={"maxSteps": 6})
    adapter = {"path": str(former), "mustMatchLora": False}
    # A rate that moves nothing: what comes out is what went in.
    _, still = trained(
        "still", adapter=adapter, lora={"rank": 64}, training={"maxSteps": 1, "learningRate": 1e-12}
    )
    assert tensors(still).keys() == tensors(former).keys()
    for name, tensor in tensors(former).items():
        torch.testing.assert_close(tensors(still)[name], tensor, atol=1e-9, rtol=0)
    config = json.loads((still / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    card = (tmp_path / "registry/still/README.md").read_text()
    assert "| rank, alpha, dropout | 4, 8, 0.0 |" in card
    assert "| went on from | an earlier adapter, `adapter` |" in card
    assert first_loss(still) < first_loss(former) - 0.1
    _, moved = trained("moved", adapter=adapter, training={"maxSteps": 2})
    assert any(not torch.equal(tensors(moved)[name], tensor) for name, tensor in tensors(former).items())


def test_adapter_that_leaves_a_layer_without_weights_is_refused(
    trained, tiny_llama, training_data, job_of, pods
):
    _, former = trained("first", training={"maxSteps": 1})
    job = job_of(tiny_llama, training_data(40), adapter={"path": str(former), "mustMatchLora": False})
    assert pods.run("prepare", job)[0] == 0
    kept = pods.workspace / "prepared/former-adapter"
    config = json.loads((kept / "adapter_config.json").read_text())
    config["target_modules"] = [*config["target_modules"], "lm_head"]
    (kept / "adapter_config.json").write_text(json.dumps(config))
    # As in a pod, where PEFT's warning is no error by itself.
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        failure = pods.run("train", job)[1].failure
    assert failure.failure_class is FailureClass.BAD_INPUT
    assert "model.adapter does not fit the model" in failure.message
    assert "lm_head" in failure.message


@pytest.fixture
def loaded(tiny_llama, training_data, job_of):
    """The model of a job as training has it."""
    return lambda **changes: load_model(
        tiny_llama, job_of(tiny_llama, training_data(40), **changes), CPU, World()
    )


@pytest.mark.parametrize(("kind", "layer"), [("nf4", "Linear4bit"), ("int8", "Linear8bitLt")])
def test_adapter_is_trained_on_a_base_in_fewer_bits(trained, loaded, kind, layer):
    pytest.importorskip("bitsandbytes")
    facts, adapter = trained(kind, quantization=kind, training={"maxSteps": 8})
    whole, _ = trained("whole", training={"maxSteps": 1})
    # Rounded weights answer nearly as the whole ones, and learn.
    assert facts.evaluation.base.loss == pytest.approx(whole.evaluation.base.loss, rel=0.15)
    assert facts.evaluation.base.loss != whole.evaluation.base.loss
    assert facts.evaluation.tuned.loss < facts.evaluation.base.loss - 0.1
    assert {tensor.dtype for tensor in tensors(adapter).values()} == {torch.float32}
    layers = [part.base_layer for part in loaded(quantization=kind).modules() if hasattr(part, "base_layer")]
    assert {(type(part).__name__, part.weight.element_size()) for part in layers} == {(layer, 1)}


def test_evaluation_leaves_weights_in_4_bits_as_they_are(loaded):
    """Otherwise the training would continue with another base model after its first measurement."""
    pytest.importorskip("bitsandbytes")
    model, tokens = loaded(quantization="nf4"), torch.arange(2, 18)[None]
    before = model(input_ids=tokens).logits
    with torch.no_grad():
        model.eval()(input_ids=tokens)
    torch.testing.assert_close(model.train()(input_ids=tokens).logits, before, atol=0, rtol=0)


def test_image_without_bitsandbytes_says_so(loaded, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(StageFailure, match="this image has no bitsandbytes"):
        loaded(quantization="int8")
