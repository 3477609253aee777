# SPDX-License-Identifier: Apache-2.0
"""The one word of `status.state`, derived from the conditions by one function and never read back."""

from collections.abc import Mapping

from tuneyard_api import reasons
from tuneyard_api.status import ConditionType, State

from tuneyard_operator.domain.conditions import Conditions, find_condition, is_true

_STATE_OF_STEP: Mapping[ConditionType, State] = {
    ConditionType.ACCEPTED: State.PENDING,
    ConditionType.PLANNED: State.PENDING,
    ConditionType.DATA_READY: State.PREPARING,
    ConditionType.SCHEDULED: State.TRAINING,
    ConditionType.TRAINED: State.TRAINING,
    ConditionType.EVALUATED: State.TRAINING,
    ConditionType.PUBLISHED: State.PUBLISHING,
    ConditionType.SERVED: State.SERVING,
}
_WITHOUT_PODS = frozenset({ConditionType.ACCEPTED, ConditionType.PLANNED, ConditionType.SERVED})


def is_terminal(conditions: Conditions) -> bool:
    """Whether the job has ended, well or badly: such a job is never started again."""
    end = find_condition(conditions, ConditionType.SUCCEEDED)
    return end is not None and end.status in {"True", "False"}


def derive_state(conditions: Conditions) -> State:
    """The terminal state if there is one, else that of the first step that is not done."""
    end = find_condition(conditions, ConditionType.SUCCEEDED)
    if end is not None and end.status != "Unknown":
        return State.SUCCEEDED if end.status == "True" else State.FAILED
    if is_true(conditions, ConditionType.SUSPENDED):
        return State.SUSPENDED
    for condition in conditions:
        if condition.status == "True" or condition.type not in _STATE_OF_STEP:
            continue
        if condition.reason == reasons.QUEUED:
            return State.QUEUED
        if condition.reason in reasons.WAITING and condition.type not in _WITHOUT_PODS:
            return State.WAITING
        return _STATE_OF_STEP[condition.type]
    return State.PENDING


def first_unmet(conditions: Conditions) -> ConditionType:
    """The first step that is not met."""
    return next(
        step for step in ConditionType if step is ConditionType.SUCCEEDED or not _is_met(conditions, step)
    )


def _is_met(conditions: Conditions, step: ConditionType) -> bool:
    return step is ConditionType.SUSPENDED or is_true(conditions, step)


def is_after(kind: ConditionType, step: ConditionType) -> bool:
    """Whether a condition is a later step than another."""
    steps = list(_STATE_OF_STEP)
    return kind in steps and steps.index(kind) > steps.index(step)
