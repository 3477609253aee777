# SPDX-License-Identifier: Apache-2.0
"""The fields by which a job survives what clusters do: attempts, deadlines, what is kept after the end.

They may change while a job runs (`CHANGEABLE`); everything else is frozen when it starts, and an edit is refused
(`admission.build_edit_policy`).
"""

from typing import Annotated, Literal

from pydantic import Field

from tuneyard_api.base import Contract

CHANGEABLE = ("suspend", "budget", "retry", "deadlines", "ttl", "deletionPolicy")
"""Fields of spec that a job follows at once, also after it has started."""

DeletionPolicy = Literal["Retain", "Delete"]

_Seconds = Annotated[int, Field(ge=1, le=31_536_000)]


class Retry(Contract):
    """When a stage is started again. A stage that would fail in the same way again is not."""

    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """Attempts of one stage, including the first, that may fail by themselves, for example when a hub does not answer or the training hangs."""
    max_interruptions: Annotated[int, Field(ge=0, le=1000)] = 20
    """Interruptions of one stage from outside (evicted, preempted, node lost) that cost no attempt."""
    backoff_seconds: Annotated[int, Field(ge=1, le=3600)] = 10
    """Wait before the first repetition. It doubles each time, and starts over after an attempt of ten minutes."""
    max_backoff_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    """Longest wait."""


class Deadlines(Contract):
    """How long a job may take. Suspended time counts for neither limit; absent means no limit."""

    pending_seconds: _Seconds | None = None
    """Longest single wait, for example for the runtime and claims, for the pods of a stage to start, or for a lost pod to end."""
    active_seconds: _Seconds | None = None
    """Time during which stages run, summed over all attempts. Waiting for the pods of a training does not count."""


class Budget(Contract):
    """What a training may spend. It stops with a checkpoint when that is spent, and continues when there is more."""

    gpu_hours: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """GPUs times hours during which the pods of a training run, over all attempts; absent: no limit. A training on CPU spends none."""


class Ttl(Contract):
    """How long Jobs, pods, logs and workspace stay after the end. The FineTuneJob itself always stays."""

    after_success_seconds: Annotated[int, Field(ge=0, le=31_536_000)] = 86_400
    """Seconds after Succeeded. The published adapter is not in the workspace."""
    after_failure_seconds: Annotated[int, Field(ge=0, le=31_536_000)] = 604_800
    """Seconds after Failed. The workspace has the checkpoints."""
