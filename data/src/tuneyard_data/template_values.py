# SPDX-License-Identifier: Apache-2.0
"""The values of a record as a job's template sees them: never in the spelling of Python.

A null is an empty text, and so is NaN, as which pandas writes a blank cell. A boolean is `true` or `false`. A list, an
object and bytes are no text at all: whoever writes one into a text has to say how, by a filter. Tests, loops, attributes and
the filter tojson see the values as they are.
"""

import json
import math
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment


class _Null(str):
    """A null: no text, false, and equal to none."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other is None or str.__eq__(self, other) is True

    __hash__ = str.__hash__


class _Boolean(int):
    """A boolean, spelled as JSON does."""

    __slots__ = ()

    def __str__(self) -> str:
        return "true" if self else "false"

    __repr__ = __str__


class NotTextError(TypeError):
    """A template writes a value that is no text, and what it may do instead."""


class _List(list[Any]):
    __slots__ = ()

    def __str__(self) -> str:
        raise NotTextError("a list is no text; try a filter such as `| first`, `| join(', ')` or `| tojson`")


class _Object(dict[str, Any]):
    __slots__ = ()

    def __str__(self) -> str:
        raise NotTextError("an object is no text; try one of its keys, or the filter `| tojson`")


class _Bytes(bytes):
    __slots__ = ()

    def __str__(self) -> str:
        raise NotTextError("bytes are no text; try a column that holds strings")


def as_template_value(value: Any) -> Any:
    """A value of JSON or Parquet as templates see it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _Null()
    if isinstance(value, bool):
        return _Boolean(value)
    if isinstance(value, dict):
        return _Object((key, as_template_value(inner)) for key, inner in value.items())
    if isinstance(value, list | tuple):  # Parquet's maps are lists of pairs
        return _List(as_template_value(inner) for inner in value)
    if isinstance(value, bytes):
        return _Bytes(value)
    return value


def _as_json_value(value: Any) -> Any:
    """The value of JSON that a template's value was made of."""
    if isinstance(value, _Null):
        return None
    if isinstance(value, _Boolean):
        return bool(value)
    if isinstance(value, dict):
        return {key: _as_json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json_value(inner) for inner in value]
    return value


def build_environment() -> ImmutableSandboxedEnvironment:
    """Jinja2 in a sandbox where an unknown column is an error, for values of `as_template_value`."""
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, finalize=_written
    )
    environment.filters["tojson"] = _to_json
    environment.tests["none"] = lambda value: value is None or isinstance(value, _Null)
    environment.tests["boolean"] = lambda value: isinstance(value, bool | _Boolean)
    environment.tests["true"] = lambda value: value is True or (isinstance(value, _Boolean) and value == 1)
    environment.tests["false"] = lambda value: value is False or (isinstance(value, _Boolean) and value == 0)
    environment.tests["integer"] = lambda value: (
        isinstance(value, int) and not isinstance(value, bool | _Boolean)
    )
    return environment


def _written(value: Any) -> Any:
    """What an expression of the template writes: its value may be one that the template made itself."""
    return (
        value
        if isinstance(value, str | int | float | jinja2.Undefined) and not isinstance(value, bool)
        else as_template_value(value)
    )


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        _as_json_value(value),
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
