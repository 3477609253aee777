# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is told of FineTuneJobs, read from their status alone.

`changes_between` says what one status write adds to the counters, `census_of` what holds now. How a job's time is
divided is decided in `ledger` and nowhere else: what Prometheus is told adds up to what status says.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tuneyard_api import reasons
from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.status import Attempt, FineTuneJobStatus, State

from tuneyard_operator.domain.conditions import Conditions, read_time
from tuneyard_operator.domain.state import is_terminal

FINAL_ENDINGS = (
    (State.SUCCEEDED.value, reasons.SUCCEEDED),
    *((State.FAILED.value, failure_class.value) for failure_class in FailureClass),
    *(
        (State.FAILED.value, reason)
        for reason in (
            *(reasons.INVALID_SPEC, reasons.METHOD_NOT_IN_RUNTIME, reasons.PLAN_REFUSED, reasons.PLAN_LOST),
            *(reasons.OBJECT_INVALID, reasons.ATTEMPTS_EXHAUSTED, reasons.INTERRUPTED_TOO_OFTEN),
            *(reasons.ACTIVE_DEADLINE, reasons.PENDING_DEADLINE),
            *(reasons.ENDPOINT_UNREACHABLE, reasons.SERVE_TIMEOUT, reasons.BASE_NOT_SERVED),
            reasons.TRIAL_FAILED,
        )
    ),
)
"""State and reason of all ways in which a job ends."""
_WAITING = (State.PENDING, State.QUEUED, State.WAITING)
_ON_GPUS = (State.TRAINING, State.QUEUED, State.WAITING)


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed attempt."""

    stage: str
    failure_class: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What one status write adds."""

    ended: tuple[str, str] | None = None
    """State and reason of a job that has just ended."""
    failed: tuple[Failed, ...] = ()
    queue_seconds: tuple[float, ...] = ()
    """Time of each training attempt whose pods now all run: in its queue so far, and from its start until they ran."""
    held_seconds: int = 0
    """GPU seconds that the ledger has counted."""
    useful_seconds: int = 0
    """GPU seconds of optimizer steps that are kept for good; negative where a later report divides the run otherwise."""
    served_seconds: float | None = None
    """Time from publication until every replica answered, of an adapter that is served now."""


@dataclass(frozen=True, slots=True)
class Census:
    """What holds now."""

    jobs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Number of jobs by state and reason."""
    gpus: Mapping[str, int] = field(default_factory=dict)
    """GPUs that jobs train on or wait for, by state."""
    longest_wait: Mapping[str, float] = field(default_factory=dict)
    """Seconds for which the job that waits longest has been in its step, by state."""
    tokens_per_second: float = 0.0
    """Speed of all jobs that train."""


def changes_between(former: FineTuneJobStatus, status: FineTuneJobStatus) -> Changes:
    """What the write of `status` in place of `former` adds."""
    before = {(each.stage, each.number): each for each in former.attempts}
    pairs = [(before.get((each.stage, each.number)), each) for each in status.attempts]
    trainings = [(was, each) for was, each in pairs if each.stage is Stage.TRAIN]
    failed = [
        each for was, each in pairs if each.outcome == "Failed" and (was is None or was.outcome == "Running")
    ]
    return Changes(
        ended=_ended(former, status),
        failed=tuple(Failed(each.stage, each.failure_class or "") for each in failed),
        queue_seconds=tuple(_queue_seconds(each) for was, each in trainings if _begins_to_run(was, each)),
        held_seconds=_held(status) - _held(former),
        useful_seconds=_kept(status) - _kept(former),
        served_seconds=_new(former, status, "served_after_seconds"),
    )


def census_of(statuses: Iterable[FineTuneJobStatus], now: datetime) -> Census:
    """All jobs of the cluster, counted."""
    jobs: dict[tuple[str, str], int] = {}
    gpus: dict[str, int] = {}
    waits: dict[str, float] = {}
    tokens = 0.0
    for status in statuses:
        state = status.state
        kind = (state.value, reason_of(status.conditions))
        jobs[kind] = jobs.get(kind, 0) + 1
        if state in _ON_GPUS and status.plan is not None:
            gpus[state.value] = gpus.get(state.value, 0) + status.plan.gpus
        if state in _WAITING:
            waits[state.value] = max(waits.get(state.value, 0.0), _waited(status.conditions, now))
        if state is State.TRAINING and status.progress is not None:
            tokens += status.progress.tokens_per_second or 0.0
    return Census(jobs, gpus, waits, tokens)


def reason_of(conditions: Conditions) -> str:
    """The reason of a job's state: of its end, of its suspension, or of the first step that is not done; empty before the first."""
    end = conditions[-1:] if is_terminal(conditions) else ()
    unmet = (each for each in conditions if each.status == "False" and each.type != "Suspended")
    suspended = (each for each in conditions if each.type == "Suspended" and each.status == "True")
    return next((each.reason for each in (*end, *suspended, *unmet)), "")


def _ended(former: FineTuneJobStatus, status: FineTuneJobStatus) -> tuple[str, str] | None:
    if is_terminal(former.conditions) or not is_terminal(status.conditions):
        return None
    return status.state.value, reason_of(status.conditions)


def _held(status: FineTuneJobStatus) -> int:
    return status.ledger.gpu_seconds if status.ledger else 0


def _kept(status: FineTuneJobStatus) -> int:
    """GPU seconds of optimizer steps that a checkpoint or the end of the training has kept."""
    ledger = status.ledger
    if ledger is None or status.plan is None:
        return 0
    return status.plan.gpus * ((ledger.seconds.training or 0) - (ledger.unsaved_seconds or 0))


def _begins_to_run(was: Attempt | None, attempt: Attempt) -> bool:
    return attempt.running_since is not None and (was is None or was.running_since is None)


def _queue_seconds(attempt: Attempt) -> float:
    """All time in its queue so far; and from its start, or from when its queue last let it go, until its pods ran."""
    began = read_time(attempt.running_since or attempt.started)
    return attempt.queued_seconds + max(0.0, (began - read_time(attempt.started)).total_seconds())


def _new(former: FineTuneJobStatus, status: FineTuneJobStatus, name: str) -> float | None:
    """A number of the result that `former` had not; None: it is not new."""
    before, after = (getattr(each.result, name, None) for each in (former, status))
    return None if before is not None or after is None else float(after)


def _waited(conditions: Conditions, now: datetime) -> float:
    """Seconds since the first step that is not done is wanted."""
    since = next((each.last_transition_time for each in conditions if each.status == "False"), None)
    return max(0.0, (now - read_time(since)).total_seconds()) if since else 0.0
