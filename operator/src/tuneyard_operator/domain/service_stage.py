# SPDX-License-Identifier: Apache-2.0
"""Carries the training in NeMo Customizer: the second way beside pods, with the same attempts, verdicts and status.

A customization is started only when the service was asked in the same pass and has none of its name, and counts as
an attempt as soon as it is there: an operator that died between the two finds it by its name.
docs/adr/0012-jobs-carried-by-a-service.md has the reasons.
"""

from datetime import timedelta

from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import FailureClass, Progress, Stage
from tuneyard_api.status import Attempt, ConditionType, WaitingFor

from tuneyard_operator.domain.conditions import api_time, read_time
from tuneyard_operator.domain.customizations import SeenCustomization, ServiceTrouble
from tuneyard_operator.domain.decision import Cancel, Submit
from tuneyard_operator.domain.holding import why_it_stops
from tuneyard_operator.domain.objects.customization import build_order
from tuneyard_operator.domain.progress import READ_EVERY
from tuneyard_operator.domain.stages import Carrier, Running, Work, again, stop
from tuneyard_operator.domain.verdict import StageFailure, Verdict

GONE_AFTER = timedelta(seconds=30)
"""How long after its start a customization may be missing in the service's list before it counts as deleted."""
RECHECK_SECONDS = 10.0
STOPPING_POLL = 2.0


def trouble_verdict(trouble: ServiceTrouble) -> Verdict:
    """What the job waits for while a service does not do as asked, or why it has failed."""
    message = f"{trouble.service} at {trouble.address}: {trouble.message}"
    if trouble.final:
        return Verdict(trouble.reason, message, final=True)
    again_after = max(RECHECK_SECONDS, trouble.again_after or 0.0)
    return _waiting(trouble.reason, message, trouble.service, trouble.address, again_after)


def is_by_service(work: Work) -> bool:
    """Whether a service trains instead of pods."""
    return work.frozen.runtime.customizer is not None


def progress_of(seen: SeenCustomization) -> Progress | None:
    """How far a customization is, in the words of a training pod."""
    if not seen.of or not seen.step:
        return None
    return Progress(stage=Stage.TRAIN, phase="training", step=seen.step, of=seen.of, loss=seen.loss)


def _asked(work: Work) -> tuple[SeenCustomization, ...] | Verdict:
    seen = work.seen.customizations
    if seen is None:
        return Verdict(reasons.STARTING, "train starts next", again_after=0.0)
    return trouble_verdict(seen) if isinstance(seen, ServiceTrouble) else seen


def _named(work: Work, number: int) -> tuple[SeenCustomization, ...] | Verdict:
    """The customizations of an attempt, oldest first: one that is a repetition is not the one that counts."""
    seen = _asked(work)
    if isinstance(seen, Verdict):
        return seen
    name = names.customization_name(work.seen.name, work.seen.uid, number)
    return tuple(
        sorted((each for each in seen if each.name == name), key=lambda each: (each.created, each.id))
    )


def _start(work: Work, stage: Stage, number: int, micro_batch: int | None) -> str | Verdict:
    """Ask for the customization of an attempt, unless the service has it already; returns its name."""
    there = _named(work, number)
    if isinstance(there, Verdict):
        return there
    if names.CUSTOMIZATION_FINALIZER not in work.seen.finalizers:
        # The next pass sets it. Only then is it certain that the customization is cancelled with the job.
        return Verdict(reasons.STARTING, "is about to train", again_after=0.0)
    order = build_order(work.owner, work.frozen, number, micro_batch)
    if not there:
        work.actions.append(Submit(ConditionType.SCHEDULED, order, (stage, number)))
    return order.name


def _exists(work: Work, _: Stage, number: int) -> bool:
    """Whether an attempt is there and not over; what can't be known counts as there, so that nothing is left to run unseen."""
    there = _named(work, number)
    return isinstance(there, Verdict) or any(not each.is_over for each in there)


def _follow(work: Work, attempt: Attempt) -> SeenCustomization | Running | Verdict:
    all_seen, there = _asked(work), _named(work, attempt.number)
    if isinstance(all_seen, Verdict):
        return all_seen
    ours = there[0] if isinstance(there, tuple) and there else None
    for other in all_seen:
        if other is not ours and not other.is_over and other.state != "cancelling":
            _cancel(work, other)
    if ours is None:
        return _missing(work, attempt)
    if ours.state == "completed":
        work.report.end(attempt, ours)
        return ours
    if attempt.stopping is not None:
        return _finish_stopping(work, attempt, ours)
    return _ended(work, attempt, ours) if ours.is_over else _watch(work, attempt, ours)


def _ended(work: Work, attempt: Attempt, ours: SeenCustomization) -> Running | Verdict:
    """It failed, or was cancelled by somebody else."""
    if ours.state == "failed":
        return again(work, CARRIER, attempt.stage, work.report.end(attempt, _failure(attempt, ours)))
    message = f"customization {ours.id} ({ours.name}) was cancelled by somebody in the Customizer"
    work.report.end(work.report.note(attempt, message=message), None)
    return Verdict(reasons.CANCELLED_THERE, message, final=True)


def _watch(work: Work, attempt: Attempt, ours: SeenCustomization) -> Running | Verdict:
    """It waits or runs."""
    if work.hold is not None:
        message = f"{why_it_stops(work.hold)}: customization {ours.id} is cancelled"
        return stop(work, attempt, reasons.SUSPENDING, message)
    if ours.state != "running":
        message = f"customization {ours.id} waits to be started: {ours.message or 'no word yet'}"
        return _waiting(reasons.WAITING_FOR_SERVICE, message, "Customization", ours.id, READ_EVERY)
    if attempt.running_since is None:
        attempt = work.report.note(attempt, running_since=api_time(work.now))
    return Running(attempt, (), ours)


def _missing(work: Work, attempt: Attempt) -> Running | Verdict:
    """The service does not have the customization that status speaks of."""
    if work.now - read_time(attempt.started) < GONE_AFTER and attempt.stopping is None:
        message = f"customization {attempt.job} is not in the service's list yet"
        return _waiting(reasons.WAITING_FOR_SERVICE, message, "Customization", attempt.job, STOPPING_POLL)
    message = f"customization {attempt.job} was deleted in the Customizer before it had ended"
    failure = StageFailure(FailureClass.INTERRUPTED, message) if attempt.stopping is None else None
    return again(work, CARRIER, attempt.stage, work.report.end(attempt, failure))


def _finish_stopping(work: Work, attempt: Attempt, ours: SeenCustomization) -> Running | Verdict:
    if ours.is_over:
        return again(work, CARRIER, attempt.stage, work.report.end(attempt, None))
    if ours.state != "cancelling":
        _cancel(work, ours)
    return Verdict(attempt.stopping or "", attempt.message or "", again_after=STOPPING_POLL)


def _cancel(work: Work, customization: SeenCustomization) -> None:
    service = work.frozen.runtime.customizer
    if service is not None:
        work.actions.append(Cancel(service.endpoint, customization.id, customization.name))


def cancel_late(work: Work, attempt: Attempt) -> bool:
    """Cancel what runs of an attempt that a deadline ends; false if it has ended well, or nothing is known of it."""
    there = _named(work, attempt.number)
    if isinstance(there, Verdict) or any(each.state == "completed" for each in there):
        return False
    for each in there:
        if not each.is_over and each.state != "cancelling":
            _cancel(work, each)
    return True


def _failure(attempt: Attempt, ours: SeenCustomization) -> StageFailure:
    """Why a customization failed, as far as the service's words tell."""
    said = ours.message or "no reason was given"
    message = f"train attempt {attempt.number}, customization {ours.id}: {said}"
    kind = FailureClass.OUT_OF_MEMORY if "out of memory" in said.lower() else FailureClass.UPSTREAM
    return StageFailure(kind, message)


def _waiting(reason: str, message: str, kind: str, name: str, again_after: float) -> Verdict:
    waiting = WaitingFor(kind=kind, name=name[:256], reason=reason, message=message[:2048])
    return Verdict(reason, message, waiting_for=waiting, again_after=again_after)


CARRIER: Carrier[SeenCustomization] = Carrier(start=_start, exists=_exists, follow=_follow)
