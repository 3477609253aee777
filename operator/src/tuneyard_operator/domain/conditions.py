# SPDX-License-Identifier: Apache-2.0
"""The one place where conditions are written, so that transition times and bounds are right everywhere."""

from datetime import UTC, datetime
from typing import Literal

from tuneyard_api.status import Condition, ConditionType

Conditions = tuple[Condition, ...]
MAX_MESSAGE = 2048
"""Longest message in characters, as in the CRD."""
_ORDER = {kind: place for place, kind in enumerate(ConditionType)}


def api_time(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as Kubernetes writes times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_time(text: str) -> datetime:
    """The opposite of `api_time`; fractions of a second, as Kubernetes writes some times, are accepted."""
    return datetime.fromisoformat(text)


def clip(message: str, limit: int = MAX_MESSAGE) -> str:
    """The message, with its end cut to fit the CRD's bound."""
    return message if len(message) <= limit else message[: limit - 1] + "…"


def find_condition(conditions: Conditions, kind: ConditionType) -> Condition | None:
    """The condition of a type, if it is set."""
    return next((condition for condition in conditions if condition.type == kind), None)


def is_true(conditions: Conditions, kind: ConditionType) -> bool:
    """Whether the condition is set and True."""
    condition = find_condition(conditions, kind)
    return condition is not None and condition.status == "True"


def set_condition(
    conditions: Conditions,
    kind: ConditionType,
    *,
    status: Literal["True", "False", "Unknown"],
    reason: str,
    message: str,
    generation: int,
    now: datetime,
) -> Conditions:
    """The conditions with one of them set; its transition time moves only when its status flips."""
    former = find_condition(conditions, kind)
    kept = former is not None and former.status == status
    condition = Condition(
        type=kind,
        status=status,
        reason=reason,
        message=clip(message),
        observed_generation=generation,
        last_transition_time=former.last_transition_time if former is not None and kept else api_time(now),
    )
    others = [other for other in conditions if other.type != kind]
    return tuple(sorted([*others, condition], key=lambda each: _ORDER[each.type]))
