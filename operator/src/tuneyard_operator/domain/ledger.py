# SPDX-License-Identifier: Apache-2.0
"""Counts where the time of a job goes: each second since its creation once, in one part.

A pass counts the time from the last write of status until now, and only when something else is written anyway. The
times of pods cut it into queued, pulling and the run of the container; the trainer's own measurement divides a run, and
divides it anew as long as it goes on, so that no rounding adds up. See docs/how-to/look-at-jobs.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tuneyard_api.ledger import LedgerSeconds, LedgerStatus, Part, PhaseTimes
from tuneyard_api.pod_contract import Stage, StageResult
from tuneyard_api.status import Attempt, ConditionType, FineTuneJobStatus

from tuneyard_operator.domain.conditions import api_time, is_true, read_time
from tuneyard_operator.domain.deadlines import running_attempt
from tuneyard_operator.domain.failures import read_result
from tuneyard_operator.domain.observed import Observed, SeenPod

Parts = dict[Part, int]

_CLOCKS = timedelta(seconds=5)
"""How far the clocks of operator and API server may be apart."""
_OF_PHASE: Mapping[str, Part] = {
    "compiling": Part.COMPILING,
    "training": Part.TRAINING,
    "checkpointing": Part.CHECKPOINTING,
    "evaluating": Part.EVALUATING,
}
_OF_STAGE: Mapping[Stage, Part] = {Stage.PREPARE: Part.PREPARING, Stage.PUBLISH: Part.PUBLISHING}


def account(seen: Observed, status: FineTuneJobStatus, now: datetime) -> FineTuneJobStatus:
    """The status to write, with the time until `now` counted; the time alone is no reason to write it.

    The end of a pod that is taken away is one: the pod is gone by the time that anything else is to be written.
    """
    if status == seen.status and not _is_run_over(seen):
        return status
    ledger = seen.status.ledger or _opened(seen, now)
    begin = read_time(ledger.until)
    span = _Span(begin, max(begin, now.replace(microsecond=0)))
    attempt = running_attempt(seen.status)
    if attempt is None:
        counted = _plus(ledger, {_between(seen.status): span.seconds})
    else:
        counted = _with_attempt(ledger, span, seen, attempt, _same(attempt, status))
    update = {"until": api_time(span.end), "gpu_seconds": held_gpu_seconds(seen, now)}
    return status.model_copy(update={"ledger": counted.model_copy(update=update)})


def held_gpu_seconds(seen: Observed, now: datetime) -> int:
    """GPU seconds of the job until `now`, those included that no write of status has counted yet."""
    ledger = seen.status.ledger or _opened(seen, now)
    begin = read_time(ledger.until)
    span = _Span(begin, max(begin, now.replace(microsecond=0)))
    return ledger.gpu_seconds + _gpu_seconds(seen, span, running_attempt(seen.status))


@dataclass(frozen=True, slots=True)
class _Span:
    """The time that is counted now."""

    begin: datetime
    end: datetime

    @property
    def seconds(self) -> int:
        return int((self.end - self.begin).total_seconds())

    def until(self, moment: datetime | None) -> "_Span":
        """What of it is before a moment; all of it when the moment has not come."""
        return self if moment is None else _Span(self.begin, min(self.end, max(self.begin, moment)))

    def after(self, moment: datetime | None) -> "_Span":
        """What of it is after a moment; nothing when the moment has not come."""
        return _Span(self.until(moment).end, self.end)


@dataclass(frozen=True, slots=True)
class _Run:
    """What pods say of an attempt."""

    placed: datetime | None
    """Time at which the last of its pods had a node; None: one has none."""
    started: datetime | None
    """Time at which the last of its containers started; None: one has not."""
    finished: datetime | None
    """Time at which the first one failed, or the last one ended."""
    is_failing: bool
    is_over: bool
    """Whether nothing more will be known of it: its attempt has ended, or its queue has taken its place."""
    times: PhaseTimes | None
    """What the trainer has measured: at its end, or a moment ago."""
    guess: Part = Part.LOADING
    """What it does as long as nothing is measured; a service that trains says no more than that it does."""


def _opened(seen: Observed, now: datetime) -> LedgerStatus:
    since = now if seen.status.attempts else seen.created
    return LedgerStatus(since=api_time(since), until=api_time(since))


def _between(status: FineTuneJobStatus) -> Part:
    """What a job does while no attempt runs."""
    if is_true(status.conditions, ConditionType.SUSPENDED):
        return Part.SUSPENDED
    if is_true(status.conditions, ConditionType.PUBLISHED):
        return Part.WAITING_FOR_ENDPOINT
    has_failed = bool(status.attempts) and status.attempts[-1].outcome == "Failed"
    return Part.LOST if has_failed else Part.QUEUED


def _same(attempt: Attempt, status: FineTuneJobStatus) -> Attempt:
    """The attempt as it is written now."""
    same = (each for each in status.attempts if (each.stage, each.number) == (attempt.stage, attempt.number))
    return next(same, attempt)


def _with_attempt(
    ledger: LedgerStatus, span: _Span, seen: Observed, attempt: Attempt, after: Attempt
) -> LedgerStatus:
    """The ledger after a time in which an attempt was under way."""
    run = _run_of(seen, attempt, after, ledger.run, span)
    placed, started = span.until(run.placed), span.after(run.placed).until(run.started)
    running, rest = span.after(run.started).until(run.finished), span.after(run.started).after(run.finished)
    if run.started is None:
        running = rest = _Span(span.end, span.end)
    ledger = _plus(
        ledger,
        {Part.QUEUED: placed.seconds}, {Part.PULLING: started.seconds}, {_rest(run, attempt, after): rest.seconds},
    )  # fmt: skip
    former = ledger.run.by_part() if ledger.run else dict.fromkeys(Part, 0)
    parts, unsaved = _divided(run, after, former, ledger.unsaved_seconds, seconds=running.seconds)
    if run.is_over and after.outcome != "Succeeded":
        parts = _with_loss(parts, attempt.stage, unsaved, 0 if run.times else running.seconds)
    ledger = _plus(ledger, parts, {part: -count for part, count in former.items()})
    is_open = not run.is_over and any(parts.values())
    return ledger.model_copy(
        update={
            "run": LedgerSeconds.of(parts) if is_open else None,
            "unsaved_seconds": unsaved if is_open else None,
        }
    )


def _is_run_over(seen: Observed) -> bool:
    """Whether the pods of an attempt that is stopped, or that its queue takes away, have ended since the last write."""
    attempt, ledger = running_attempt(seen.status), seen.status.ledger
    if attempt is None or ledger is None or ledger.run is None:
        return False
    is_leaving = attempt.stopping is not None or attempt.queued_since is not None
    return is_leaving and all(pod.is_over for pod in seen.pods_of(attempt.stage, attempt.number))


def _run_of(
    seen: Observed, attempt: Attempt, after: Attempt, open_run: LedgerSeconds | None, span: _Span
) -> _Run:
    pods = seen.pods_of(attempt.stage, attempt.number)
    is_let_go = attempt.queued_since is not None and after.queued_since is None
    is_over = after.outcome != "Running" or is_let_go or _is_run_over(seen)
    if attempt.stage is Stage.TRAIN and seen.status.plan and seen.status.plan.customizer:
        began = read_time(after.running_since) if after.running_since else None
        return _Run(began, began, None, is_failing=False, is_over=is_over, times=None, guess=Part.TRAINING)
    if (attempt.queued_since or attempt.queued_seconds) and open_run is None:
        # Pods that ended when the queue took the place away may still be there.
        since = read_time(attempt.queued_since or attempt.started) - _CLOCKS
        pods = tuple(pod for pod in pods if pod.created >= since)
    if len(pods) < _nodes(seen, attempt.stage, pods):
        # Pods of a run that are gone have run until now, as far as anybody knows.
        begun = span.begin if open_run is not None or attempt.stopping else None
        finished = span.begin if open_run is None else None
        return _Run(begun, begun, finished, is_failing=begun is not None, is_over=is_over, times=None)
    failed = [pod.finished for pod in pods if pod.phase == "Failed" and pod.finished]
    ended = [pod.finished for pod in pods if pod.finished]
    finished = min(failed) if failed else max(ended) if len(ended) == len(pods) else None
    results = (_result(seen, attempt, pod) for pod in sorted(pods, key=lambda pod: pod.name))
    times = next((result.times for result in results if result and result.times), None)
    live = seen.progress.times if seen.progress and seen.progress.stage is attempt.stage else None
    return _Run(
        placed=_last([pod.scheduled for pod in pods]),
        started=_last([pod.started for pod in pods]),
        finished=finished,
        is_failing=any(pod.is_failing for pod in pods),
        is_over=is_over,
        times=times or live,
    )


def _last(moments: list[datetime | None]) -> datetime | None:
    """The last one, if all have come."""
    return max((each for each in moments if each), default=None) if all(moments) else None


def _nodes(seen: Observed, stage: Stage, pods: tuple[SeenPod, ...]) -> int:
    if seen.frozen is None:
        return max(1, len(pods))
    return seen.frozen.plan.resolved.nodes if stage is Stage.TRAIN else 1


def _result(seen: Observed, attempt: Attempt, pod: SeenPod) -> StageResult | None:
    if seen.status.plan is None or pod.terminated is None:
        return None
    result = read_result(pod, attempt.stage, seen.status.plan.digest)
    return result if isinstance(result, StageResult) else None


def _rest(run: _Run, attempt: Attempt, after: Attempt) -> Part:
    """What the time after the end of the pods is, in which the operator learns of it and makes the next ones."""
    if attempt.queued_since or after.queued_since:
        return Part.QUEUED
    if after.outcome == "Succeeded":
        return Part.WAITING_FOR_ENDPOINT if after.stage is Stage.PUBLISH else Part.QUEUED
    if after.outcome == "Stopped":
        return Part.SUSPENDED
    return Part.LOST if run.is_failing or after.outcome == "Failed" else Part.QUEUED


def _divided(
    run: _Run, attempt: Attempt, former: Parts, unsaved: int | None, *, seconds: int
) -> tuple[Parts, int | None]:
    """All that an attempt has spent in its container, `seconds` of it since the last time; and what of it is not saved."""
    total = sum(former.values()) + seconds
    if attempt.stage is not Stage.TRAIN:
        return {_OF_STAGE[attempt.stage]: total}, None
    if run.times is not None:
        parts = by_phases(total, run.times.seconds)
        return parts, min(parts[Part.TRAINING], max(0, round(run.times.unsaved_seconds)))
    if attempt.outcome == "Succeeded" and unsaved is None:
        return {Part.TRAINING: total}, None  # An image that measures nothing.
    now = Part.TRAINING if former[Part.TRAINING] else run.guess
    is_at_risk = unsaved is not None and now is Part.TRAINING
    return {**former, now: former[now] + seconds}, (unsaved or 0) + seconds if is_at_risk else unsaved


def by_phases(total: int, seconds: Mapping[str, float]) -> Parts:
    """`total` seconds of a training container, divided as the trainer has measured them; what it has not is loading.

    Bounds between parts are rounded, not parts, so that they add up. Of a trainer that has measured more than `total`,
    as clocks differ, every part is made smaller alike.
    """
    measured = dict.fromkeys(Part, 0.0)
    for phase, spent in seconds.items():
        measured[_OF_PHASE.get(phase, Part.LOADING)] += max(0.0, spent)
    known = sum(measured.values())
    scale = min(1.0, total / known) if known else 1.0
    measured[Part.LOADING] += max(0.0, total - known)
    parts, at, bound = dict.fromkeys(Part, 0), 0.0, 0
    for part, spent in measured.items():
        at += spent * scale
        parts[part], bound = min(total, round(at)) - bound, min(total, round(at))
    return parts


def _with_loss(parts: Parts, stage: Stage, unsaved: int | None, unreported: int) -> Parts:
    """The run of an attempt that has come to nothing: other stages keep nothing, training what a checkpoint has kept.

    Nobody knows what was done in the `unreported` seconds before the end of a trainer that could not say it: they count
    as lost. What they were taken for until now is the part that has grown.
    """
    if stage is not Stage.TRAIN:
        return {Part.LOST: sum(parts.values())}
    trained = min(parts.get(Part.TRAINING, 0), max(unsaved or 0, unreported))
    other = min(parts.get(Part.LOADING, 0), max(0, unreported - trained))
    return {
        **parts,
        Part.TRAINING: parts.get(Part.TRAINING, 0) - trained,
        Part.LOADING: parts.get(Part.LOADING, 0) - other,
        Part.LOST: parts.get(Part.LOST, 0) + trained + other,
    }


def _gpu_seconds(seen: Observed, span: _Span, attempt: Attempt | None) -> int:
    """GPUs times the seconds of the span for which pods held them; a pod holds its GPUs from its node to its end."""
    gpus = seen.status.plan.gpus if seen.status.plan else 0
    training = [pod for pod in seen.pods if pod.stage is Stage.TRAIN]
    is_training = attempt is not None and attempt.stage is Stage.TRAIN
    if is_training and attempt is not None and attempt.running_since is not None and not training:
        return gpus * span.seconds
    held = 0
    for pod in training:
        is_of_attempt = is_training and attempt is not None and pod.attempt == attempt.number
        if pod.scheduled and (is_of_attempt or not pod.is_over):
            held += span.after(pod.scheduled).until(pod.finished).seconds
    return gpus * held // _nodes(seen, Stage.TRAIN, tuple(training))


def _plus(ledger: LedgerStatus, *more: Mapping[Part, int]) -> LedgerStatus:
    parts = ledger.seconds.by_part()
    for each in more:
        for part, count in each.items():
            parts[part] += count
    return ledger.model_copy(update={"seconds": LedgerSeconds.of(parts)})
