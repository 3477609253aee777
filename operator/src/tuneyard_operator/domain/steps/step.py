# SPDX-License-Identifier: Apache-2.0
"""What every step needs to report why it is not met and when to look again."""

from datetime import timedelta

from tuneyard_api.status import ConditionType

from tuneyard_operator.domain.stages import Running, Work
from tuneyard_operator.domain.verdict import Verdict
from tuneyard_operator.domain.waiting import EVENTS_AFTER, PATIENCE

RECHECK_SECONDS = 10.0
"""Seconds between looks for something outside our watches, such as a claim or a quota."""
QUIET_SECONDS = 60.0
"""Seconds between looks at a job without events."""
STARTING_AFTER = timedelta(seconds=5)
"""How long a scheduled pod may take to start before the job reports `Starting`."""


def leave_unmet(work: Work, step: ConditionType, verdict: Verdict, requeue: float = RECHECK_SECONDS) -> float:
    """Report a step as not met; returns the seconds until the next look."""
    work.report.unmet(step, verdict)
    return requeue if verdict.again_after is None else verdict.again_after


def attempt_text(outcome: Running) -> str:
    """`attempt 2, micro batch 1`."""
    micro = outcome.attempt.micro_batch_size
    return f"attempt {outcome.attempt.number}" + (f", micro batch {micro}" if micro else "")


def look_again_after(work: Work, outcome: Running) -> float:
    """The seconds until a stage that starts must be looked at again to notice that it does not."""
    if not outcome.pods:
        return EVENTS_AFTER.total_seconds() + 1
    if all(pod.running or pod.is_over for pod in outcome.pods):
        return QUIET_SECONDS
    youngest = max(pod.created for pod in outcome.pods)
    for threshold in (PATIENCE, STARTING_AFTER):
        left = (youngest + threshold - work.now).total_seconds()
        if left >= 0:
            return left + 0.5
    return EVENTS_AFTER.total_seconds()
