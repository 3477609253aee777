# SPDX-License-Identifier: Apache-2.0
"""Lowers the micro batch of a training attempt, to use less memory, by one variable: job.json is frozen."""

from copy import deepcopy
from typing import Any

from tuneyard_api.pod_contract import CONTAINER, ENV_MICRO_BATCH


def with_micro_batch(job: dict[str, Any], size: int | None) -> dict[str, Any]:
    """The same Job with the variable of the pod contract; None leaves it as planned."""
    if size is None:
        return job
    job = deepcopy(job)
    for container in job["spec"]["template"]["spec"]["containers"]:
        if container["name"] == CONTAINER:
            container["env"].append({"name": ENV_MICRO_BATCH, "value": str(size)})
    return job
