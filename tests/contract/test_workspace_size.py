# SPDX-License-Identifier: Apache-2.0
"""A workspace is as large as its model and method need, where the model's name tells, and never below the runtime's say."""

from typing import Any

import pytest
from tuneyard_api.job import FineTuneJob
from tuneyard_api.methods import method_of
from tuneyard_api.planner import make_plan
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.workspace_size import parameters_in, workspace_gib


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("meta-llama/Llama-3.2-1B", 1e9),
        ("meta-llama/Llama-3.1-8B-Instruct", 8e9),
        ("llama-3_1-8b", 8e9),
        ("Qwen/Qwen2.5-0.5B", 5e8),
        ("mistralai/Mixtral-8x7B-v0.1", 56e9),
        ("HuggingFaceTB/SmolLM-360M", 3.6e8),
        ("gpt2", None),
        ("tiny-llama", None),
        ("models/v2b3/base", None),
    ],
)
def test_a_name_tells_the_parameters_or_not(name: str, parameters: float | None) -> None:
    assert parameters_in(name) == parameters


@pytest.mark.parametrize(
    ("method", "dora", "rank", "is_downloaded", "gib"),
    [
        ("lora", False, 16, False, 10),
        ("lora", False, 16, True, 25),
        ("lora", True, 16, True, 40),
        ("lora", False, 64, False, 27),
        ("sft", False, 16, True, 303),
    ],
)
def test_checkpoints_of_everything_that_is_trained_have_room(
    method: str, dora: bool, rank: int, is_downloaded: bool, gib: int
) -> None:
    size = workspace_gib(
        model="a/b-8B",
        method=method_of(method, dora=dora),
        rank=rank,
        checkpoints=2,
        is_downloaded=is_downloaded,
    )
    assert size == gib


def planned(model: dict[str, Any], runtime: dict[str, Any] | None = None, **workspace: Any) -> int:
    spec = {
        "model": model,
        "dataset": {"training": {"pvc": {"claimName": "data", "path": "t.jsonl"}}},
        "method": "lora",
        "workspace": workspace,
    }
    offered = {"image": "t:1", "accelerator": "nvidia", "methods": ["lora"], **(runtime or {})}
    offered["defaults"] = {"registry": {"claimName": "adapters"}, "workspaceSizeGiB": 20}
    return make_plan(
        FineTuneJob.model_validate({"metadata": {"name": "a"}, "spec": spec}),
        FineTuneRuntime.model_validate({"metadata": {"name": "hf"}, "spec": offered}),
    ).workspace_size_gib


HUB = {"huggingFace": {"repo": "meta-llama/Llama-3.3-70B-Instruct"}}


@pytest.mark.parametrize(
    ("model", "runtime", "workspace", "gib"),
    [
        ({"pvc": {"claimName": "models", "path": "tiny"}}, None, {}, 20),
        (HUB, None, {}, 184),
        (HUB, {"modelCache": "cache"}, {}, 54),
        (HUB, None, {"sizeGiB": 7}, 7),
    ],
    ids=["unknown size: the runtime's", "downloaded", "cached by the runtime", "as the job says"],
)
def test_the_plan_takes_the_larger_of_estimate_and_runtime(
    model: dict[str, Any], runtime: dict[str, Any] | None, workspace: dict[str, Any], gib: int
) -> None:
    assert planned(model, runtime, **workspace) == gib
