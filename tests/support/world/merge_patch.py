# SPDX-License-Identifier: Apache-2.0
"""The effect of a JSON merge patch on the API server."""

from collections.abc import Mapping
from typing import Any


def merged(former: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7386."""
    result = dict(former)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            before = result.get(name)
            result[name] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            result[name] = value
    return result
