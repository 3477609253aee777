# SPDX-License-Identifier: Apache-2.0
"""The smallest job and runtime that fit each other, and the refusals of a pair that does not."""

from typing import Any

import pytest
from tuneyard_api.job import FineTuneJob
from tuneyard_api.planner import PlanRefused, make_plan
from tuneyard_api.runtime import FineTuneRuntime

MINIMAL: dict[str, Any] = {
    "model": {"pvc": {"claimName": "models", "path": "tiny"}},
    "dataset": {"training": {"pvc": {"claimName": "data", "path": "train.jsonl"}}},
    "method": "lora",
}


def make_job(name: str = "answers", uid: str = "u1", **spec: Any) -> FineTuneJob:
    return FineTuneJob.model_validate({"metadata": {"name": name, "uid": uid}, "spec": MINIMAL | spec})


def make_runtime(name: str = "hf", **spec: Any) -> FineTuneRuntime:
    base = {"image": "trainer:1", "accelerator": "nvidia", "methods": ["lora"]}
    defaults = {"registry": {"claimName": "adapters"}} | spec.pop("defaults", {})
    return FineTuneRuntime.model_validate(
        {"metadata": {"name": name}, "spec": base | {"defaults": defaults} | spec}
    )


def problems(job: FineTuneJob, runtime: FineTuneRuntime, *others: FineTuneRuntime) -> list[str]:
    with pytest.raises(PlanRefused) as refused:
        make_plan(job, runtime, others)
    return [str(problem) for problem in refused.value.problems]
