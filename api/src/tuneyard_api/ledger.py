# SPDX-License-Identifier: Apache-2.0
"""Where the time of a FineTuneJob went: every second since its creation is in exactly one part."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, computed_field

from tuneyard_api.base import Tolerant

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Part(StrEnum):
    """What a second of a job was spent on. Each is a field of LedgerSeconds, which says what it means."""

    QUEUED = "queued"
    PULLING = "pulling"
    PREPARING = "preparing"
    LOADING = "loading"
    COMPILING = "compiling"
    TRAINING = "training"
    CHECKPOINTING = "checkpointing"
    EVALUATING = "evaluating"
    PUBLISHING = "publishing"
    WAITING_FOR_ENDPOINT = "waitingForEndpoint"
    SUSPENDED = "suspended"
    LOST = "lost"


SHOULD_TRAIN = (
    Part.PULLING,
    Part.LOADING,
    Part.COMPILING,
    Part.TRAINING,
    Part.CHECKPOINTING,
    Part.EVALUATING,
    Part.LOST,
)
"""The parts that goodput divides by: a pod of the job is there, or was and has to be made again."""


class PhaseTimes(Tolerant):
    """How long the process of a stage has been in each phase; the trainer measures it, and the ledger divides by it."""

    seconds: dict[str, float]
    """Seconds by the phases of Progress. A phase that the operator does not know counts as `loading`."""
    unsaved_seconds: float = 0.0
    """Seconds of `training` that no checkpoint has kept."""


class LedgerSeconds(Tolerant):
    """Seconds by what they were spent on; a part without any is absent."""

    queued: int | None = None
    """Nothing of the job has a node: it waits to be accepted, for quota, for its queue or for a GPU."""
    pulling: int | None = None
    """A pod has a node, and its container has not started: image and volumes."""
    preparing: int | None = None
    """The stage prepare runs."""
    loading: int | None = None
    """The training pods start, load the model and wait for each other."""
    compiling: int | None = None
    """The first optimizer step of a training that compiles its model."""
    training: int | None = None
    """Optimizer steps that a checkpoint or the end of the training has kept, or may still keep."""
    checkpointing: int | None = None
    """Checkpoints are written."""
    evaluating: int | None = None
    """Held-out records are measured: the base model, the model in training and the tuned model."""
    publishing: int | None = None
    """The stage publish runs."""
    waiting_for_endpoint: int | None = None
    """The adapter is published, and not every replica of the server answers with it yet."""
    suspended: int | None = None
    """Suspended by spec.suspend."""
    lost: int | None = None
    """Optimizer steps since the last checkpoint of an attempt that failed, and the time until the next attempt starts."""

    @classmethod
    def of(cls, parts: Mapping[Part, int]) -> Self:
        """Makes the ledger's parts from seconds; zeros are left out."""
        return cls.model_validate({part.value: count for part, count in parts.items() if count})

    def by_part(self) -> dict[Part, int]:
        """Seconds of every part, in the order of Part."""
        there = self.model_dump(exclude_none=True)
        return {part: there.get(part.value, 0) for part in Part}


class LedgerStatus(Tolerant):
    """The ledger of one job. The parts of `seconds` add up to the time from `since` to `until`."""

    since: Time
    """Creation of the FineTuneJob; the time of the update for a job that ran when the operator learned to count."""
    until: Time
    """Everything before is counted. It moves when the rest of status is written, and for the last time when the job ends."""
    seconds: LedgerSeconds = LedgerSeconds()
    gpu_seconds: int = 0
    """GPUs held by training pods, times the seconds for which they held them."""
    run: LedgerSeconds | None = None
    """What of `seconds` the attempt that runs has spent in its container. A later report of the trainer may divide it otherwise."""
    unsaved_seconds: int | None = None
    """What of `run.training` no checkpoint has kept yet."""

    @computed_field(  # type: ignore[prop-decorator]
        description="Training, in percent of pulling, loading, compiling, training, checkpointing, evaluating and lost together."
    )
    @property
    def goodput_percent(self) -> int | None:
        """None before the training."""
        parts = self.seconds.by_part()
        if not parts[Part.TRAINING]:
            return None
        return round(100 * parts[Part.TRAINING] / sum(parts[part] for part in SHOULD_TRAIN))
