# SPDX-License-Identifier: Apache-2.0
"""Gives a training attempt another micro batch or gradient checkpointing than job.json, which is frozen, by variables."""

from copy import deepcopy
from typing import Any

from tuneyard_api.pod_contract import CONTAINER, ENV_GRADIENT_CHECKPOINTING, ENV_MICRO_BATCH


def with_choices(
    job: dict[str, Any], *, micro_batch: int | None, is_recomputing: bool | None
) -> dict[str, Any]:
    """The same Job with variables of the pod contract; None leaves job.json as it is."""
    chosen = {}
    if micro_batch is not None:
        chosen[ENV_MICRO_BATCH] = str(micro_batch)
    if is_recomputing is not None:
        chosen[ENV_GRADIENT_CHECKPOINTING] = "true" if is_recomputing else "false"
    if not chosen:
        return job
    job = deepcopy(job)
    for container in job["spec"]["template"]["spec"]["containers"]:
        if container["name"] == CONTAINER:
            container["env"] += [{"name": name, "value": value} for name, value in chosen.items()]
    return job
