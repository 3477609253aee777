# SPDX-License-Identifier: Apache-2.0
"""What the workspace keeps of each attempt of a training, so that a tracker can be told of it later."""

import contextlib
import time
from pathlib import Path

from pydantic import Field, ValidationError
from tuneyard_api import durable
from tuneyard_api.base import Tolerant
from tuneyard_api.pod_contract import FailureClass

from tuneyard_trainer.pod.context import StageContext
from tuneyard_trainer.pod.failures import classify
from tuneyard_trainer.tracking.client import Status

FOLDER = "tracking"


class Attempt(Tolerant):
    """One attempt: `tracking/attempt-<number>.json`."""

    uid: str
    """The job's uid."""
    number: int
    started: int
    """Milliseconds since 1970."""
    parameters: dict[str, str] = Field(default_factory=dict)
    """What was chosen for this attempt alone."""
    ended: int | None = None
    status: Status | None = None
    """How it ended; absent: it was killed before it could say so, or still runs."""
    message: str | None = None
    """Why it failed."""


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def begin(context: StageContext) -> Attempt:
    """The attempt of this pod; one that starts again keeps its beginning."""
    known = {each.number: each for each in attempts_of(context)}.get(context.attempt)
    training = context.job.training
    attempt = Attempt(
        uid=context.job.uid,
        number=context.attempt,
        started=known.started if known else now(),
        parameters={
            "training.microBatchSize": str(training.micro_batch_size),
            "training.gradientAccumulation": str(training.gradient_accumulation),
            "training.gradientCheckpointing": str(training.gradient_checkpointing).lower(),
        },
    )
    _write(context, attempt)
    return attempt


def end(context: StageContext, attempt: Attempt, error: BaseException | None) -> Attempt:
    """The attempt with how it ended."""
    changes: dict[str, object] = {"ended": now(), "status": "FINISHED"}
    if error is not None:
        failure = classify(error)
        is_stopped = failure.failure_class is FailureClass.INTERRUPTED
        changes |= {"status": "KILLED" if is_stopped else "FAILED", "message": failure.message}
    ended = attempt.model_copy(update=changes)
    _write(context, ended)
    return ended


def attempts_of(context: StageContext) -> list[Attempt]:
    """All attempts of the job that the workspace knows, in order."""
    found = []
    for path in (context.workspace / FOLDER).glob("attempt-*.json"):
        with contextlib.suppress(OSError, ValidationError):
            found.append(Attempt.model_validate_json(path.read_bytes()))
    return sorted((each for each in found if each.uid == context.job.uid), key=lambda attempt: attempt.number)


def _write(context: StageContext, attempt: Attempt) -> None:
    """Keeps it if there is room: what fails on a full disk is the training, and it says so itself."""
    path: Path = context.workspace / FOLDER / f"attempt-{attempt.number}.json"
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        durable.write_file(path, attempt.model_dump_json(by_alias=True, exclude_none=True).encode())
