# SPDX-License-Identifier: Apache-2.0
"""What the forecast takes from the trainer is what the trainer does: which path a training goes, and what is trained."""

import json
from pathlib import Path

import pytest
from tuneyard_api.forecast.work import work_of
from tuneyard_api.model_shape import shape_of, tensors_in

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch
P_TUNING = {"method": "pTuning", "pTuning": {"virtualTokens": 5}}
TINY = Path(__file__).parents[2] / "examples" / "models" / "tiny-llama"


@pytest.fixture
def shape():
    return shape_of(json.loads((TINY / "config.json").read_text()), tensors_in(TINY))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "sft"},
        {"method": "dpo"},
        {"method": "ia3"},
        P_TUNING,
        {"lora": {"dora": True}},
        {"quantization": "fp8"},
        {"quantization": "nf4"},
        {"quantization": "int8"},
        {"gpusPerNode": 2},
    ],
    ids=str,
)
def test_the_forecast_knows_which_path_a_training_takes(monkeypatch, job_of, jsonl, shape, changes):
    from tuneyard_trainer.model.loading import Device
    from tuneyard_trainer.training import losses

    monkeypatch.setattr(losses, "_has_compiler", lambda: True)
    runtime = {"accelerator": "nvidia", "precisions": ["bf16"]}
    job = job_of(TINY, jsonl([{"prompt": "a", "completion": "b"}]), runtime=runtime, **changes)
    device = Device(torch.device("cuda"), torch.bfloat16, is_autocast=True)
    assert (work_of(job, shape).why_plain is None) == (losses._why_not(job, device) is None)


@pytest.mark.parametrize(
    "changes",
    [{}, {"method": "sft"}, {"method": "ia3"}, P_TUNING, {"lora": {"dora": True}}],
    ids=str,
)
def test_the_forecast_counts_what_is_trained(job_of, jsonl, shape, changes):
    from tuneyard_trainer.model.loading import choose_device, load_model, trained_parameters
    from tuneyard_trainer.model.world import World

    job = job_of(TINY, jsonl([{"prompt": "a", "completion": "b"}]), **changes)
    model = load_model(TINY, job, choose_device(job, 0), World())
    counted = sum(parameter.numel() for parameter in trained_parameters(model).values())
    assert work_of(job, shape).trained_parameters == counted
