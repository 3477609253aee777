# SPDX-License-Identifier: Apache-2.0
"""A node's taint as `kubectl taint` writes it, and what tolerates it."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from tuneyard_api.job_rules import is_label_key

EFFECTS = ("NoSchedule", "NoExecute", "PreferNoSchedule")
_TAINT = re.compile(
    rf"(?P<key>[^=:]+)(=(?P<value>[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?))?(:(?P<effect>{'|'.join(EFFECTS)}))?"
)


def _checked(taint: str) -> str:
    found = _TAINT.fullmatch(taint)
    if not found or not is_label_key(found["key"]):
        raise PydanticCustomError(
            "taint",
            "must be a taint as kubectl writes it, such as `dedicated`, `dedicated:NoExecute` or `dedicated=gpu:NoExecute`",
        )
    return taint


Taint = Annotated[str, Field(min_length=1, max_length=400), AfterValidator(_checked)]
"""`key`, `key:Effect`, `key=value` or `key=value:Effect`; without an effect it is NoSchedule."""


def build_toleration(taint: str) -> dict[str, Any]:
    """The toleration of a taint; without a value it tolerates every value."""
    found = _TAINT.fullmatch(taint)
    if not found:
        raise ValueError(f"{taint!r} is no taint")
    compared = {"operator": "Equal", "value": found["value"]} if found["value"] else {"operator": "Exists"}
    return {"key": found["key"], **compared, "effect": found["effect"] or "NoSchedule"}
