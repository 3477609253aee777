# SPDX-License-Identifier: Apache-2.0
"""How long has a job waited, how long has it run, and is that too long? Suspended and queued time is in neither."""

from datetime import datetime, timedelta

from tuneyard_api import reasons
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import Attempt, ConditionType, FineTuneJobStatus
from tuneyard_api.survival import Deadlines

from tuneyard_operator.domain.conditions import find_condition, is_true, read_time
from tuneyard_operator.domain.observed import Observed
from tuneyard_operator.domain.verdict import Verdict


def ran(attempt: Attempt, until: datetime) -> int:
    """Seconds that an attempt has run. Training counts from the start of its pods, since it may wait long for a GPU."""
    if attempt.queued_since is not None:
        return 0
    since = attempt.running_since if attempt.stage is Stage.TRAIN else attempt.started
    return max(0, int((until - read_time(since)).total_seconds())) if since else 0


def queued_for(attempt: Attempt, until: datetime) -> int:
    """Seconds for which its queue holds an attempt back this time; 0 when it does not."""
    since = attempt.queued_since
    return max(0, int((until - read_time(since)).total_seconds())) if since else 0


def why_late(seen: Observed, deadlines: Deadlines, now: datetime) -> Verdict | float | None:
    """The verdict of a deadline that has passed, else the seconds until the nearest one, or None when none applies."""
    left: list[float] = []
    attempt = running_attempt(seen.status)
    if deadlines.active_seconds is not None and attempt is not None:
        active = (seen.status.active_seconds or 0) + ran(attempt, now)
        if active >= deadlines.active_seconds:
            message = f"ran for {active} s, longer than deadlines.activeSeconds {deadlines.active_seconds}"
            return Verdict(reasons.ACTIVE_DEADLINE, message, final=True)
        left.append(deadlines.active_seconds - active)
    since = _waits_since(seen, attempt)
    if deadlines.pending_seconds is not None and since is not None:
        waited = now - since
        if waited >= timedelta(seconds=deadlines.pending_seconds):
            message = f"waited longer than deadlines.pendingSeconds {deadlines.pending_seconds}: {seen.status.message}"
            return Verdict(reasons.PENDING_DEADLINE, message, final=True)
        left.append(deadlines.pending_seconds - waited.total_seconds())
    return min(left) + 0.5 if left else None


def running_attempt(status: FineTuneJobStatus) -> Attempt | None:
    """The one attempt that is not over, if there is one."""
    return next((attempt for attempt in status.attempts if attempt.outcome == "Running"), None)


def _waits_since(seen: Observed, attempt: Attempt | None) -> datetime | None:
    """The time since which nothing of the job runs, though something should."""
    conditions = seen.status.conditions
    if attempt is not None:
        return _not_running_since(seen, attempt)
    accepted = find_condition(conditions, ConditionType.ACCEPTED)
    if accepted is None or is_true(conditions, ConditionType.PUBLISHED):
        return None
    resumed = find_condition(conditions, ConditionType.SUSPENDED)
    moments = [read_time(resumed.last_transition_time)] if resumed is not None else []
    if not is_true(conditions, ConditionType.ACCEPTED):
        return max([read_time(accepted.last_transition_time), *moments])
    waiting = seen.status.waiting_for
    if waiting is None or waiting.reason == reasons.BACKING_OFF:
        return None
    over = [read_time(each.ended) for each in seen.status.attempts if each.ended]
    planned = find_condition(conditions, ConditionType.PLANNED)
    since = read_time((planned or accepted).last_transition_time)
    return max([since, *over, *moments])


def _not_running_since(seen: Observed, attempt: Attempt) -> datetime | None:
    """The time since which an attempt does not run: its start, or the time at which a pod on a lost node should have ended.

    None also while its queue holds it: how long that takes is for who shares out the quota to say.
    """
    if seen.frozen is not None and seen.frozen.runtime.customizer is not None and attempt.running_since:
        return None
    job, pods = seen.job_of(attempt.stage, attempt.number), seen.pods_of(attempt.stage, attempt.number)
    lost = [pod.gone_by for pod in pods if pod.gone_by is not None and not pod.is_over]
    if lost:
        return min(lost)
    has_begun = bool(pods) or (job is not None and job.pods_made)
    if has_begun and not any(pod.phase == "Pending" for pod in pods):
        return None
    is_held = job is not None and (job.suspended or (job.queue and job.started is None))
    if is_held or attempt.queued_since is not None:
        return None
    let_go = [job.started] if job is not None and job.started is not None else []
    return max([read_time(attempt.started), *let_go])
