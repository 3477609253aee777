# SPDX-License-Identifier: Apache-2.0
"""The plan, runtime and spec that a job started with, kept in an immutable ConfigMap.

A running job must not change when somebody edits its runtime, and a restarted operator must build the next stage
from the same words as the last one. So plan, runtime and spec are written down together, once.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError
from tuneyard_api.job import FineTuneJobSpec
from tuneyard_api.planner import Plan
from tuneyard_api.runtime import FineTuneRuntimeSpec

JOB_KEY = "job.json"
"""Key of the part that pods read."""
OPERATOR_KEY = "operator.json"
"""Key of the part that only the operator reads."""


@dataclass(frozen=True)
class Frozen:
    """Everything that later stages are built from."""

    plan: Plan
    runtime: FineTuneRuntimeSpec
    spec: FineTuneJobSpec


_ADAPTER = TypeAdapter(Frozen)


class FrozenUnreadableError(ValueError):
    """The ConfigMap is there but was not written by this version of the operator."""


def frozen_data(frozen: Frozen) -> dict[str, str]:
    """The ConfigMap's `data`."""
    return {
        JOB_KEY: frozen.plan.resolved.model_dump_json(by_alias=True),
        OPERATOR_KEY: _ADAPTER.dump_json(frozen, by_alias=True).decode(),
    }


def read_frozen(data: Mapping[str, str]) -> Frozen:
    """The opposite of `frozen_data`.

    Raises:
        FrozenUnreadableError: with what is wrong.
    """
    try:
        # After a rollback, a later version has written it. What only that one knows is for pods, which have job.json as it is.
        return _ADAPTER.validate_json(data.get(OPERATOR_KEY, ""), extra="ignore")
    except ValidationError as error:
        raise FrozenUnreadableError(f"{OPERATOR_KEY}: {error.errors()[0]['msg']}") from error
