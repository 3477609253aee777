# SPDX-License-Identifier: Apache-2.0
"""Whether something holds a job back: a person who suspends it, or a budget that is spent. Both stop it with a checkpoint."""

from datetime import datetime

from tuneyard_api import reasons
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import ConditionType

from tuneyard_operator.domain.conditions import is_true
from tuneyard_operator.domain.deadlines import running_attempt
from tuneyard_operator.domain.ledger import held_gpu_seconds
from tuneyard_operator.domain.observed import Observed
from tuneyard_operator.domain.verdict import Verdict

_HOUR = 3600
SUSPENDED = Verdict(reasons.SUSPENDED, "spec.suspend is true, and nothing of the job runs")


def why_held_back(seen: Observed, now: datetime) -> Verdict | float | None:
    """What holds the job back, else the seconds until its budget is spent, or None if nothing ever will."""
    if seen.live.suspend:
        return SUSPENDED
    hours, gpus = seen.live.budget.gpu_hours, seen.status.plan.gpus if seen.status.plan else 0
    if hours is None or not gpus or is_true(seen.status.conditions, ConditionType.EVALUATED):
        return None
    attempt = running_attempt(seen.status)
    running = attempt is not None and attempt.stage is Stage.TRAIN
    spent = held_gpu_seconds(seen, now)
    if spent >= hours * _HOUR:
        by_service = seen.status.plan is not None and seen.status.plan.customizer is not None
        goes_on = "starts over" if by_service else "continues from its checkpoint"
        message = (
            f"spent {spent / _HOUR:.3g} GPU hours of spec.budget.gpuHours {hours:g}, and holds no GPU; it {goes_on} when the"
            " budget is larger"
        )
        return Verdict(reasons.BUDGET_SPENT, message)
    return (hours * _HOUR - spent) / gpus + 0.5 if running else None


def why_it_stops(hold: Verdict) -> str:
    """The cause, for the message of a stage that runs and is stopped."""
    return "the budget is spent" if hold.reason == reasons.BUDGET_SPENT else "spec.suspend is true"
