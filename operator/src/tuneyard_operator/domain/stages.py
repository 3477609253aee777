# SPDX-License-Identifier: Apache-2.0
"""Carries one stage from its first attempt to a result: start, watch, judge, start again or give up."""

from dataclasses import dataclass, field
from datetime import datetime

from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import RETRIABLE, FailureClass, Stage, StageResult
from tuneyard_api.status import Attempt, ConditionType, WaitingFor

from tuneyard_operator.domain.build.metadata import Owner
from tuneyard_operator.domain.build.pod import memory_limit
from tuneyard_operator.domain.build.stage_job import build_rendezvous_service, build_stage_job, stage_nodes
from tuneyard_operator.domain.decision import Create, Note
from tuneyard_operator.domain.failures import Ending, classify, read_result
from tuneyard_operator.domain.frozen import Frozen
from tuneyard_operator.domain.observed import Observed, SeenJob, SeenPod
from tuneyard_operator.domain.report import Report
from tuneyard_operator.domain.verdict import StageFailure, Verdict
from tuneyard_operator.domain.waiting import Start, why_waiting

STEP_OF_STAGE = {
    Stage.PREPARE: ConditionType.DATA_READY,
    Stage.TRAIN: ConditionType.SCHEDULED,
    Stage.PUBLISH: ConditionType.PUBLISHED,
}
"""The first condition of each stage: what a refused Job is reported under."""


@dataclass
class Work:
    """One pass over one job: what is seen, what is decided so far."""

    seen: Observed
    report: Report
    frozen: Frozen
    now: datetime
    actions: list[Create] = field(default_factory=list)

    @property
    def owner(self) -> Owner:
        """The owner of every child."""
        return Owner(self.seen.namespace, self.seen.name, self.seen.uid)


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt that is under way, with nothing in its way."""

    attempt: int
    pods: tuple[SeenPod, ...]


def carry(work: Work, stage: Stage) -> StageResult | Running | Verdict:
    """The stage's result, or where it stands; starts attempts as needed.

    An operator that died between creating a Job and saying so starts the attempt again: its name is the same, so the
    API server answers that it is there, and it is taken as it is.
    """
    attempt = work.report.latest_attempt(stage)
    if attempt is None:
        return _start(work, stage, 1)
    if attempt.outcome == "Running":
        return _follow(work, stage, attempt)
    return _again(work, stage, attempt)


def _start(work: Work, stage: Stage, number: int) -> Running:
    body = build_stage_job(work.owner, work.frozen, stage, number)
    step = STEP_OF_STAGE[stage]
    if stage_nodes(work.frozen, stage) > 1:
        work.actions.append(
            Create(step, build_rendezvous_service(work.owner, work.frozen, number), (stage, number))
        )
    work.actions.append(Create(step, body, (stage, number)))
    work.report.begin(stage, number, names.stage_job_name(work.seen.name, stage, number), work.now)
    return Running(number, ())


def _follow(work: Work, stage: Stage, attempt: Attempt) -> StageResult | Running | Verdict:
    job, pods = work.seen.job_of(stage, attempt.number), work.seen.pods_of(stage, attempt.number)
    result = _succeeded(work, stage, pods) if job is not None else None
    if result is not None:
        work.report.end(attempt, result)
        return result
    if job is None or job.failed is not None or job.complete or _all_succeeded(work, stage, pods):
        failure = classify(_ending(work, stage, attempt.number, job, pods))
        ended = work.report.end(attempt, failure)
        return _again(work, stage, ended)
    trouble = why_waiting(Start(job, pods, work.seen.events, work.frozen.runtime, work.now))
    return trouble or Running(attempt.number, pods)


def _succeeded(work: Work, stage: Stage, pods: tuple[SeenPod, ...]) -> StageResult | None:
    """The result as soon as all pods are seen Succeeded: the Job says so only a second later."""
    if not _all_succeeded(work, stage, pods):
        return None
    for pod in pods:
        result = read_result(pod, stage, work.frozen.plan.digest)
        if isinstance(result, StageResult) and result.outcome == "Succeeded":
            return result
    return None


def _all_succeeded(work: Work, stage: Stage, pods: tuple[SeenPod, ...]) -> bool:
    return sum(pod.phase == "Succeeded" for pod in pods) >= stage_nodes(work.frozen, stage)


def _ending(work: Work, stage: Stage, number: int, job: SeenJob | None, pods: tuple[SeenPod, ...]) -> Ending:
    """The pod that failed first tells most; one that was taken down with it only repeats that."""
    failed = [pod for pod in pods if pod.phase == "Failed"]
    telling = next((pod for pod in failed if pod.terminated is not None), None)
    pod = telling or next(iter(failed or pods), None)
    memory = memory_limit(work.frozen, stage)
    return Ending(stage, number, work.frozen.plan.digest, pod, job, memory)


def _again(work: Work, stage: Stage, attempt: Attempt) -> Running | Verdict:
    """After a failed attempt: another one when that can help, once nothing of this one runs any more."""
    failure = StageFailure(
        attempt.failure_class or FailureClass.INTERRUPTED, attempt.message or "its facts were lost"
    )
    allowed = work.frozen.spec.retry.max_attempts
    if failure.failure_class not in RETRIABLE:
        return Verdict(failure.failure_class.value, failure.message, final=True)
    if attempt.number >= allowed:
        message = f"gave up after {allowed} attempts of {stage}; the last: {failure.message}"
        return Verdict(reasons.ATTEMPTS_EXHAUSTED, message, final=True)
    alive = [pod for pod in work.seen.pods_of(stage, attempt.number) if not pod.is_over]
    if alive:
        message = (
            f"attempt {attempt.number} failed ({failure.message}); its pod {alive[0].name} has not ended yet"
        )
        waiting = WaitingFor(
            kind="Pod", name=alive[0].name, reason=reasons.FORMER_POD_ENDING, message=message
        )
        return Verdict(reasons.FORMER_POD_ENDING, message, waiting_for=waiting)
    if work.report.latest_attempt(stage) == attempt:
        note = f"{stage} starts again (attempt {attempt.number + 1} of {allowed}): {failure.message}"
        work.report.notes.append(Note("Warning", reasons.RETRYING, note))
    return _start(work, stage, attempt.number + 1)
