# SPDX-License-Identifier: Apache-2.0
"""Decides which changes of a status are written at once, and which may wait for the next decision.

A pod that has been placed or runs is still there a second later, so the write that says so may wait for the next
decision. An end, a cause, a reason to stop and the time that they take may not: what they tell of can be gone by then.
"""

from tuneyard_api.status import Condition, ConditionType, FineTuneJobStatus, State

from tuneyard_operator.domain.deadlines import running_attempt
from tuneyard_operator.domain.decision import Decision

_KEPT_ALSO_UNMET = frozenset({ConditionType.SUCCEEDED, ConditionType.SUSPENDED})


def may_wait(former: FineTuneJobStatus, decision: Decision) -> bool:
    """Whether a decision only reports how the running attempt is doing, and the next one would report it again."""
    attempt = running_attempt(former)
    if attempt is None or attempt.stopping is not None or attempt.queued_since is not None:
        return False
    return not decision.actions and not decision.notes and _lasting(former) == _lasting(decision.status)


def _lasting(status: FineTuneJobStatus) -> FineTuneJobStatus:
    """A status without the parts that the next decision would write again."""
    return status.model_copy(
        update={
            "state": State.PENDING,
            "conditions": tuple(filter(_is_lasting, status.conditions)),
            "attempts": tuple(each.model_copy(update={"running_since": None}) for each in status.attempts),
            "message": None,
            "waiting_for": None,
            "ledger": None,
        }
    )


def _is_lasting(condition: Condition) -> bool:
    is_met = condition.status == "True" and condition.type is not ConditionType.SCHEDULED
    return is_met or condition.type in _KEPT_ALSO_UNMET
