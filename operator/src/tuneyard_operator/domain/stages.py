# SPDX-License-Identifier: Apache-2.0
"""Runs one stage from its first attempt to a result: start, watch, judge, stop, retry or give up.

Two attempts of a stage never run at once: the next one starts only when status says that the last one is over,
and none of its pods is left. The reason for stopping an attempt is written to status before its Job is deleted.
See docs/adr/0008-survival.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import FailureClass, Stage, StageResult
from tuneyard_api.status import Attempt, ConditionType, WaitingFor

from tuneyard_operator.domain.conditions import api_time, clip
from tuneyard_operator.domain.customizations import SeenCustomization
from tuneyard_operator.domain.decision import Action, Create, Delete, Note
from tuneyard_operator.domain.failures import Ending, classify, first_cause, good_result, last_lines
from tuneyard_operator.domain.frozen import Frozen
from tuneyard_operator.domain.held import since_let_go, why_held
from tuneyard_operator.domain.holding import why_it_stops
from tuneyard_operator.domain.objects.choices import with_choices
from tuneyard_operator.domain.objects.metadata import Owner
from tuneyard_operator.domain.objects.pod import memory_limit
from tuneyard_operator.domain.objects.stage_job import build_rendezvous_service, build_stage_job, stage_nodes
from tuneyard_operator.domain.observed import Observed, SeenJob, SeenPod
from tuneyard_operator.domain.report import Report
from tuneyard_operator.domain.retries import next_attempt
from tuneyard_operator.domain.verdict import StageFailure, Verdict
from tuneyard_operator.domain.waiting import Start, lost_pod, why_waiting

STEP_OF_STAGE = {
    Stage.PREPARE: ConditionType.DATA_READY,
    Stage.TRAIN: ConditionType.SCHEDULED,
    Stage.PUBLISH: ConditionType.PUBLISHED,
}
"""First condition of each stage; a refused Job is reported by it."""


@dataclass
class Work:
    """One pass over one job: what is seen, what is decided so far."""

    seen: Observed
    report: Report
    frozen: Frozen
    now: datetime
    hold: Verdict | None = None
    """What holds the job back."""
    actions: list[Action] = field(default_factory=list)

    @property
    def owner(self) -> Owner:
        """The owner of every child."""
        return Owner(self.seen.namespace, self.seen.name, self.seen.uid)


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt that is under way, with nothing in its way."""

    attempt: Attempt
    pods: tuple[SeenPod, ...]
    customization: SeenCustomization | None = None
    """What a service says of it, if one carries it."""


Result = TypeVar("Result")
"""What a stage that has ended well leaves: the termination message of its pods, or what a service says."""


@dataclass(frozen=True, slots=True)
class Carrier(Generic[Result]):
    """A way to run the attempts of a stage: in pods, or by a service."""

    start: Callable[[Work, Stage, int, int | None], str | Verdict]
    """Adds the actions that start an attempt (from 1), with this micro batch; returns the attempt's name there."""
    exists: Callable[[Work, Stage, int], bool]
    """Whether an attempt that is not in status was started all the same."""
    follow: Callable[[Work, Attempt], Result | Running | Verdict]
    """The attempt that status says is running."""


def carry(work: Work, stage: Stage, by: Carrier[Result]) -> Result | Running | Verdict:
    """The stage's result, or its progress so far; starts attempts as needed.

    An operator that died between creating a Job and writing the status starts the attempt again: its name is the same,
    so the API server answers that it is there, and it is taken as it is.
    """
    attempt = work.report.latest_attempt(stage)
    if attempt is None:
        return _start(work, by, stage, 1)
    if attempt.outcome == "Running":
        return by.follow(work, attempt)
    return again(work, by, stage, attempt)


def has_succeeded(seen: Observed, frozen: Frozen, attempt: Attempt) -> bool:
    """Whether all pods of an attempt ended well."""
    pods = seen.own_pods_of(attempt.stage, attempt.number)
    return sum(pod.phase == "Succeeded" for pod in pods) >= stage_nodes(frozen, attempt.stage)


def _start(
    work: Work, by: Carrier[Any], stage: Stage, number: int, micro_batch: int | None = None
) -> Running | Verdict:
    if work.hold is not None and not by.exists(work, stage, number):
        return work.hold
    if stage is Stage.TRAIN:
        micro_batch = micro_batch or chosen_micro_batch(work)
    name = by.start(work, stage, number, micro_batch)
    if isinstance(name, Verdict):
        return name
    return Running(work.report.begin(stage, number, name, micro_batch), ())


def _start_pods(work: Work, stage: Stage, number: int, micro_batch: int | None) -> str:
    body = build_stage_job(work.owner, work.frozen, stage, number)
    if stage is Stage.TRAIN:
        body = with_choices(body, micro_batch=micro_batch, is_recomputing=chosen_checkpointing(work))
    step = STEP_OF_STAGE[stage]
    if stage_nodes(work.frozen, stage) > 1:
        work.actions.append(
            Create(step, build_rendezvous_service(work.owner, work.frozen, number), (stage, number))
        )
    work.actions.append(Create(step, body, (stage, number)))
    return names.stage_job_name(work.seen.name, stage, number)


def chosen_micro_batch(work: Work) -> int | None:
    """The micro batch that was chosen when the model was known; None: that of job.json."""
    chosen, planned = work.report.status.plan, work.frozen.plan.resolved.training.micro_batch_size
    return None if chosen is None or chosen.micro_batch_size == planned else chosen.micro_batch_size


def chosen_checkpointing(work: Work) -> bool | None:
    """Likewise gradient checkpointing."""
    chosen, planned = work.report.status.plan, work.frozen.plan.resolved.training.gradient_checkpointing
    is_same = chosen is None or chosen.gradient_checkpointing in {None, planned}
    return None if is_same or chosen is None else chosen.gradient_checkpointing


def _job_exists(work: Work, stage: Stage, number: int) -> bool:
    return work.seen.job_of(stage, number) is not None


def _follow(work: Work, attempt: Attempt) -> StageResult | Running | Verdict:
    stage = attempt.stage
    job, pods = work.seen.job_of(stage, attempt.number), work.seen.pods_of(stage, attempt.number)
    ended_well = has_succeeded(work.seen, work.frozen, attempt)
    own = work.seen.own_pods_of(stage, attempt.number)  # Their Job may be gone: what they did is done.
    result = good_result(own, stage, work.frozen.plan.digest) if ended_well else None
    if result is not None:
        work.report.end(attempt, result)
        return result
    if attempt.stopping is not None:
        return _finish_stopping(work, attempt, job, pods)
    if job is None and (outliving := _why_pods_outlive(work, attempt, pods)):
        return outliving
    endings = _endings(work, attempt, job, own if job is None else since_let_go(job, pods))
    known = None
    if attempt.failure_class:
        known = StageFailure(attempt.failure_class, attempt.message or "", attempt.last_lines or "")
    if job is None or job.is_over or ended_well:
        failure = first_cause(endings, known) or classify(endings[0])
        return again(work, PODS, stage, work.report.end(attempt, failure))
    is_one_of_several = len(pods) > 1 and any(pod.is_failing for pod in pods)
    cause = first_cause(endings, known) if is_one_of_several and not job.suspended else None
    if cause is not None:
        # Read them now: the Job ends the other pods, and they are gone by the time that it is Failed.
        attempt = work.report.note(
            attempt,
            failure_class=cause.failure_class,
            message=clip(cause.message),
            last_lines=cause.last_lines or None,
        )
    if work.hold is not None:
        message = f"{why_it_stops(work.hold)}: checkpoint and leave"
        return stop(work, attempt, reasons.SUSPENDING, message)
    return (_wait_in_queue if job.suspended else _watch)(work, attempt, job, pods)


def _watch(work: Work, attempt: Attempt, job: SeenJob, pods: tuple[SeenPod, ...]) -> Running | Verdict:
    """The Job may run: whether its pods start, and whether they still make steps."""
    if attempt.queued_since is not None:
        attempt = work.report.let_go(attempt)
    pulse = work.seen.pulse
    if pulse is not None and pulse.is_hung and any(pod.uid == pulse.pod for pod in pods):
        still = f"no step after step {pulse.step} for {pulse.still:.0f} s"
        usual = f"median step {pulse.step_seconds:.1f} s" if pulse.step_seconds else "no step yet"
        lost = next(
            (f"; node {pod.node} of pod {pod.name} does not answer" for pod in pods if pod.is_cut_off), ""
        )
        kind = FailureClass.INTERRUPTED if lost else FailureClass.HUNG
        return stop(work, attempt, kind, f"{attempt.stage} attempt {attempt.number}: {still} ({usual}){lost}")
    trouble = why_waiting(Start(job, pods, work.seen.events, work.frozen.runtime, work.now))
    return trouble or Running(attempt, pods)


def _wait_in_queue(work: Work, attempt: Attempt, job: SeenJob, pods: tuple[SeenPod, ...]) -> Verdict:
    """The Job is suspended: it has not begun, or its pods write a checkpoint and end."""
    if attempt.queued_since is None:
        attempt = work.report.queue(attempt)
    done = next((pod.name for pod in pods if pod.phase == "Succeeded"), None)
    if done is not None:
        # Kubernetes would run the other pods alone, and they would wait for this one for ever.
        message = (
            f"its queue took the place of {attempt.job} away after {done} had ended; all pods start again"
        )
        return stop(work, attempt, FailureClass.INTERRUPTED, message)
    return lost_pod(pods, work.now) or why_held(job, work.seen.queue)


def stop(work: Work, attempt: Attempt, reason: str, message: str) -> Verdict:
    """Write the reason first, then end the attempt, so that a restarted operator can finish an interrupted stop."""
    work.report.note(attempt, stopping=str(reason), message=message)
    return Verdict(str(reason), message, again_after=0.0)


def _finish_stopping(
    work: Work, attempt: Attempt, job: SeenJob | None, pods: tuple[SeenPod, ...]
) -> Running | Verdict:
    reason, message = attempt.stopping or "", attempt.message or ""
    said = next(filter(None, (last_lines(pod) for pod in sorted(pods, key=lambda pod: pod.name))), "")
    if said and attempt.last_lines is None:
        attempt = work.report.note(attempt, last_lines=said)  # Pods that are deleted can say it only now.
    alive = [pod for pod in pods if not pod.is_over]
    if (job is None or job.is_over) and not alive:
        failure = None
        if reason in {FailureClass.HUNG, FailureClass.INTERRUPTED}:
            failure = StageFailure(FailureClass(reason), message, attempt.last_lines or "")
        return again(work, PODS, attempt.stage, work.report.end(attempt, failure))
    if job is not None and not job.is_over and not job.deleting:
        work.actions.append(Delete("Job", job.name, job.uid))
    return lost_pod(pods, work.now) or Verdict(reason, message)


def _endings(
    work: Work, attempt: Attempt, job: SeenJob | None, pods: tuple[SeenPod, ...]
) -> tuple[Ending, ...]:
    """The endings of the failed pods, those with a known cause first; of any pod, or of none, if no pod failed."""
    failing = [pod for pod in pods if pod.is_failing]
    asked = sorted(failing, key=lambda pod: pod.terminated is None) or pods[:1] or (None,)
    memory, digest = memory_limit(work.frozen, attempt.stage), work.frozen.plan.digest
    name = attempt.job
    events = tuple(each for each in work.seen.events if each.name == name or each.name.startswith(f"{name}-"))
    return tuple(Ending(attempt.stage, attempt.number, digest, pod, job, memory, events) for pod in asked)


def again(work: Work, by: Carrier[Any], stage: Stage, attempt: Attempt) -> Running | Verdict:
    """Retry after a failed attempt if that can help, once none of its pods runs any more.

    Not in the pass that found it over: what the next attempt is must follow from what is written down.
    """
    attempts = work.report.attempts(stage)
    plan = next_attempt(attempts, work.seen.live.retry, work.frozen.plan.resolved.training)
    if isinstance(plan, Verdict):
        return plan
    still = _end_what_is_ahead(work, stage) or _why_not_over(work, attempt)
    if still is not None:
        return still
    is_written = attempt in work.seen.status.attempts
    if work.hold is not None and not by.exists(work, stage, attempt.number + 1):
        # Held is said when its pods were asked for, which is done once it is written that it is over.
        ending = Verdict(reasons.SUSPENDING, f"attempt {attempt.number} of {stage} is over", again_after=0.0)
        return work.hold if is_written else ending
    last = api_time(work.now) if attempt.ended is None else attempt.ended
    # If the clock was set back to before the attempt's end, the time since then is unknown.
    if last <= api_time(work.now) and work.now < plan.not_before:
        name = names.stage_job_name(work.seen.name, stage, attempt.number + 1)
        message = f"attempt {attempt.number + 1} of {stage} starts at {api_time(plan.not_before)}: {plan.why}"
        waiting = WaitingFor(kind="Job", name=name, reason=reasons.BACKING_OFF, message=message[:2048])
        left = (plan.not_before - work.now).total_seconds()
        return Verdict(reasons.BACKING_OFF, message, waiting_for=waiting, again_after=left + 0.1)
    if not is_written:
        return Verdict(plan.reason, plan.why, again_after=0.0)
    note = f"{stage} starts again (attempt {attempt.number + 1}): {plan.why}"
    work.report.notes.append(Note("Warning", plan.reason, note))
    return _start(work, by, stage, attempt.number + 1, plan.micro_batch)


def _why_not_over(work: Work, attempt: Attempt) -> Verdict | None:
    """The pod of a finished attempt that could still write."""
    alive = tuple(pod for pod in work.seen.pods_of(attempt.stage, attempt.number) if not pod.is_over)
    if not alive:
        return None
    why = attempt.message or ""
    message = f"attempt {attempt.number} is over ({why}); its pod {alive[0].name} has not ended yet"
    return lost_pod(alive, work.now) or _ending("Pod", alive[0].name, message)


def _why_pods_outlive(work: Work, attempt: Attempt, pods: tuple[SeenPod, ...]) -> Verdict | None:
    """The pod of a running attempt that has outlived its Job: it may still end well, and is judged when it has ended."""
    alive = tuple(pod for pod in pods if not pod.is_over)
    if not alive:
        return None
    message = f"Job {attempt.job} of attempt {attempt.number} was deleted; its pod {alive[0].name} has not ended yet"
    return lost_pod(alive, work.now) or _ending("Pod", alive[0].name, message)


def _end_what_is_ahead(work: Work, stage: Stage) -> Verdict | None:
    """End the Jobs of later stages before a stage runs again, and wait for their pods.

    The stage had succeeded and the next one begun, but the write that says so was lost, and then the pod as well.
    """
    later = list(Stage)[list(Stage).index(stage) + 1 :]
    jobs = [job for job in work.seen.jobs if job.owner_uid == work.seen.uid and job.stage in later]
    running = [job for job in jobs if not job.is_over]
    pods = tuple(pod for pod in work.seen.pods if pod.stage in later and not pod.is_over)
    work.actions += [
        Delete("Job", job.name, job.uid, is_by_status=True) for job in running if not job.deleting
    ]
    if not running and not pods:
        return None
    kind, name = ("Pod", pods[0].name) if pods else ("Job", running[0].name)
    message = f"{stage} must run again; {name}, which began after it, has not ended yet"
    return lost_pod(pods, work.now) or _ending(kind, name, message)


def _ending(kind: str, name: str, message: str) -> Verdict:
    waiting = WaitingFor(kind=kind, name=name, reason=reasons.FORMER_POD_ENDING, message=message[:2048])
    return Verdict(reasons.FORMER_POD_ENDING, message, waiting_for=waiting)


PODS: Carrier[StageResult] = Carrier(start=_start_pods, exists=_job_exists, follow=_follow)
