# SPDX-License-Identifier: Apache-2.0
"""Deletes a FineTuneJob with `deletionPolicy: Delete`: first its pods, then its published adapter, then itself.

A finalizer holds it from before its first publish pod until a Job has removed the published adapter. Nothing holds it
for ever: what can't be removed is left behind after PATIENCE at the latest, and an Event says where it lies.
"""

from datetime import datetime, timedelta

from pydantic import ValidationError
from tuneyard_api import names, reasons
from tuneyard_api.job import RuntimeRef
from tuneyard_api.pod_contract import Stage
from tuneyard_api.runtime import FineTuneRuntimeSpec
from tuneyard_api.status import ConditionType, FineTuneJobStatus

from tuneyard_operator.domain.acceptance import read_runtime
from tuneyard_operator.domain.conditions import is_true
from tuneyard_operator.domain.customizations import SeenCustomization, ServiceTrouble
from tuneyard_operator.domain.decision import (
    Action,
    Cancel,
    Create,
    Decision,
    Delete,
    Note,
    Refusal,
    SetFinalizers,
    Tell,
)
from tuneyard_operator.domain.live_settings import LiveSettings
from tuneyard_operator.domain.objects.metadata import Owner
from tuneyard_operator.domain.objects.unpublish_job import Published, build_unpublish_job
from tuneyard_operator.domain.observed import Deletion, Observed

PATIENCE = timedelta(minutes=15)
"""Longest time for which a deletion is delayed."""
POLL_EVERY = 2.0
"""Seconds between two looks at a job that is being deleted. Its pods are requested each time, not watched."""
REFUSED_AGAIN_AFTER = 10.0
"""Seconds after which a Job that was refused is tried again."""


def finalizers_to_set(
    live: LiveSettings, status: FineTuneJobStatus, finalizers: tuple[str, ...]
) -> tuple[str, ...] | None:
    """The finalizers that the job should have, or None when it has them; those of other programs stay."""
    wanted = list(finalizers)
    if live.deletion_policy == "Retain" and names.FINALIZER in wanted:
        wanted.remove(names.FINALIZER)
    if live.deletion_policy == "Delete" and _may_publish(status) and names.FINALIZER not in wanted:
        wanted.append(names.FINALIZER)
    if _may_customize(status) and names.CUSTOMIZATION_FINALIZER not in wanted:
        wanted.append(names.CUSTOMIZATION_FINALIZER)
    return tuple(wanted) if tuple(wanted) != finalizers else None


def decide_deletion(seen: Observed, now: datetime) -> Decision:
    """The next action for a job that is being deleted and has our finalizer."""
    if names.CUSTOMIZATION_FINALIZER in seen.finalizers:
        return end_customizations(seen, _deletion(seen).since, now)
    published = published_by(seen.status)
    if seen.live.deletion_policy == "Retain":
        return _let_go(seen, None)
    if published is None:
        path = seen.status.plan.adapter_path if seen.status.plan is not None else None
        why = "only what is on a claim is removed" if path else "its status does not say where that is"
        return _leave_behind(seen, path or "what it published", why)
    return _end(seen, published) or _next(seen, published, now)


def end_customizations(seen: Observed, since: datetime, now: datetime) -> Decision:
    """Cancel what still runs for a job that is over or being deleted in the service that trains, then let go of it.

    What can't be cancelled within PATIENCE after `since` is left behind.
    """
    found, service = seen.customizations, seen.status.plan.customizer if seen.status.plan else None
    rest = SetFinalizers(tuple(each for each in seen.finalizers if each != names.CUSTOMIZATION_FINALIZER))
    if service is None or found is None:
        return Decision((rest,), seen.status, 0.0)
    running: tuple[SeenCustomization, ...]
    if isinstance(found, ServiceTrouble):
        running, doing = (), f"{found.service} at {found.address}: {found.message}"
    else:
        running = tuple(each for each in found if not each.is_over)
        doing = f"cancels customization {', '.join(each.id for each in running)} first"
        if not running:
            return Decision((rest,), seen.status, 0.0)
    if now - since >= PATIENCE:
        message = f"left behind what runs for this job in {service}: {doing}; try cancelling it by hand"
        return Decision((Tell(Note("Warning", reasons.LEFT_BEHIND, message)), rest), seen.status, 0.0)
    cancels = tuple(Cancel(service, each.id, each.name) for each in running if each.state != "cancelling")
    return Decision(
        (Tell(Note("Normal", reasons.CANCELLING_THERE, doing)), *cancels), seen.status, POLL_EVERY
    )


def _end(seen: Observed, published: Published) -> Decision | None:
    """The decision that removes the finalizer, or None while there is still work to do."""
    leave = _deletion(seen)
    if not leave.has_registry:
        gone = f"claim {published.claim} is deleted or being deleted, and {published.path} with it"
        return _let_go(seen, Note("Normal", reasons.UNPUBLISHED, gone))
    ours = leave.unpublish if leave.unpublish is not None and leave.unpublish.made_for == seen.uid else None
    if ours is not None and ours.complete:
        return _let_go(seen, Note("Normal", reasons.UNPUBLISHED, f"claim {published.claim}: {ours.said}"))
    if ours is not None and ours.failed is not None:
        why = f"Job {ours.name} failed: {ours.said or ours.failed.message}"
        return _leave_behind(seen, str(published), why)
    return None


def _next(seen: Observed, published: Published, now: datetime) -> Decision:
    """The actions while the finalizer stays, and the seconds until the next look."""
    actions, doing = _next_steps(seen, published)
    if now - _deletion(seen).since >= PATIENCE:
        minutes = int(PATIENCE.total_seconds()) // 60
        return _leave_behind(seen, str(published), f"after {minutes} minutes it still {doing}")
    tell = Tell(Note("Normal", reasons.UNPUBLISHING, f"removes {published} before the job goes; {doing}"))
    return Decision((tell, *actions), seen.status, POLL_EVERY)


def decide_refused_deletion(seen: Observed, refusal: Refusal) -> Decision:
    """The decision when the API server refuses the unpublish Job: give up at once if a retry can't help."""
    if refusal.trouble is not None:
        return Decision((), seen.status, max(REFUSED_AGAIN_AFTER, refusal.trouble.again_after or 0.0))
    published = published_by(seen.status)
    why = f"{refusal.action.kind} {refusal.action.name} was refused: {refusal.message}"
    if refusal.cause in {"NamespaceTerminating", "Invalid"}:
        return _leave_behind(seen, str(published), why)
    tell = Tell(Note("Warning", reasons.UNPUBLISHING, f"can't remove {published} yet: {why}"))
    return Decision((tell,), seen.status, REFUSED_AGAIN_AFTER)


def published_by(status: FineTuneJobStatus) -> Published | None:
    """Where the job publishes to."""
    plan = status.plan
    if plan is None or plan.registry_claim is None or plan.adapter_path is None:
        return None
    return Published(plan.registry_claim, plan.adapter_path, plan.digest)


def _may_publish(status: FineTuneJobStatus) -> bool:
    """Whether a publish pod was made or is the next thing to be made."""
    has_begun = any(attempt.stage is Stage.PUBLISH for attempt in status.attempts)
    return has_begun or is_true(status.conditions, ConditionType.EVALUATED)


def _may_customize(status: FineTuneJobStatus) -> bool:
    """Whether a service was asked to train, or is the next thing to be asked; not of a job that is over."""
    is_by_service = status.plan is not None and status.plan.customizer is not None
    return is_by_service and is_true(status.conditions, ConditionType.DATA_READY) and status.ended is None


def _next_steps(seen: Observed, published: Published) -> tuple[tuple[Action, ...], str]:
    """What must happen before the job can go, with the actions for it."""
    leave = _deletion(seen)
    if leave.running or leave.writers:
        waits_for = ", ".join([*(each.name for each in leave.running), *leave.writers])
        return tuple(
            Delete(each.kind, each.name, each.uid) for each in leave.running
        ), f"waits for {waits_for} to end"
    job = leave.unpublish
    if job is None:
        runtime = _runtime(seen)
        if isinstance(runtime, str):
            return (), runtime
        body = build_unpublish_job(Owner(seen.namespace, seen.name, seen.uid), published, runtime)
        return (Create(ConditionType.PUBLISHED, body),), f"starts Job {names.unpublish_name(seen.name)}"
    if job.made_for != seen.uid:
        # This Job belongs to an earlier FineTuneJob of this name. One that no operator made is not ours to delete.
        former = (Delete("Job", job.name, job.uid),) if job.made_for else ()
        return former, f"waits for Job {job.name}, which does not belong to this job, to be deleted"
    return (), f"waits for Job {job.name}" + (f": {job.said}" if job.said else "")


def _runtime(seen: Observed) -> FineTuneRuntimeSpec | str:
    """The current runtime, or why there is none. The frozen one may be deleted with the job's other children."""
    name = RuntimeRef.model_validate(seen.spec.get("runtime") or {}).name
    if name not in seen.runtimes:
        return f"waits for FineTuneRuntime {name}, which does not exist"
    try:
        return read_runtime(name, seen.runtimes[name]).spec
    except ValidationError:
        return f"waits for FineTuneRuntime {name}, which can't be read"


def _leave_behind(seen: Observed, what: str, why: str) -> Decision:
    return _let_go(
        seen, Note("Warning", reasons.LEFT_BEHIND, f"left behind {what}: {why}; try removing it by hand")
    )


def _let_go(seen: Observed, note: Note | None) -> Decision:
    """Post the Event, delete the unpublish Job (which would also end by itself), and remove the finalizer."""
    job = _deletion(seen).unpublish
    is_ours = job is not None and job.made_for == seen.uid
    rest = tuple(each for each in seen.finalizers if each != names.FINALIZER)
    actions: tuple[Action, ...] = (Tell(note),) if note is not None else ()
    if job is not None and is_ours:
        actions = (*actions, Delete("Job", job.name, job.uid))
    return Decision((*actions, SetFinalizers(rest)), seen.status)


def _deletion(seen: Observed) -> Deletion:
    if seen.deletion is None:
        raise AssertionError("only of a job that is being deleted")
    return seen.deletion
