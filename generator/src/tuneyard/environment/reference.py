# SPDX-License-Identifier: Apache-2.0
"""Derived from the environment's model: the lookup of keys and the reference page."""

import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from tuneyard_api.problems import Path

from tuneyard.environment.model import Environment

_EXAMPLE = re.compile(r"\s?Example: `(?P<example>[^`]+)`\.?")
PAGE_HEAD = """\
<!-- Generated from the environment's model by `tuneyard docs`; do not edit. -->
# The environment file

`environments/<name>.yaml` is the only file that a platform engineer edits. Unknown keys are refused. YAML is read by
the rules of 1.2: `no` is a string, `2e-4` a number, duplicate keys are errors.

| key | type | default | what it says |
| --- | --- | --- | --- |
"""
SAMPLE_HEAD = """\
# Every key of an environment with its default or an example, generated from the model by `tuneyard docs`.
# Copy what differs to environments/<name>.yaml; `tuneyard init` writes a small one.
"""


def stripped(annotation: Any) -> Any:
    """The type without Annotated and without None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        return stripped(rest[0]) if len(rest) == 1 else annotation
    return annotation


def _step(annotation: Any, part: str | int) -> tuple[Any, FieldInfo | None]:
    """The type one key or index further, and the field if a model names it."""
    kind = stripped(annotation)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if part in (name, field.alias):
                return field.annotation, field
        return None, None
    if get_origin(kind) in (tuple, dict):
        arguments = get_args(kind)
        return arguments[0 if get_origin(kind) is tuple else 1], None
    return None, None


def field_at(path: Path) -> FieldInfo | None:
    """The model's field at `path`, or None for map keys, list items and unknown keys."""
    annotation: Any = Environment
    field = None
    for part in path:
        annotation, field = _step(annotation, part)
    return field


def kind_at(path: Path) -> Any:
    """The type of what is at `path`, without Annotated and None, or None where the model says nothing."""
    annotation: Any = Environment
    for part in path:
        annotation, _ = _step(annotation, part)
    return stripped(annotation)


def model_at(path: Path) -> type[BaseModel] | None:
    """The model whose keys live at `path`, or None."""
    kind = kind_at(path)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def example_of(field: FieldInfo) -> str | None:
    """The example in the field's description."""
    found = _EXAMPLE.search(field.description or "")
    return found["example"] if found else None


def describe(field: FieldInfo) -> str:
    """The field's sentence without its example."""
    return " ".join(_EXAMPLE.sub("", field.description or "").split())


def type_name(annotation: Any) -> str:
    """The name of a type for people."""
    kind = stripped(annotation)
    origin = get_origin(kind)
    if origin is Literal:
        return " \\| ".join(f"`{value}`" for value in get_args(kind))
    if origin is tuple:
        return f"list of {type_name(get_args(kind)[0])}"
    if origin is dict:
        return f"map of {type_name(get_args(kind)[1])}"
    if isinstance(kind, type):
        names = {str: "string", int: "integer", float: "number", bool: "boolean"}
        return "object" if issubclass(kind, BaseModel) else names.get(kind, kind.__name__)
    return "any"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.default
    if value is None or value is PydanticUndefined or isinstance(value, BaseModel) or value in ((), {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return (
        f"`{', '.join(value)}`"
        if isinstance(value, tuple) and all(isinstance(v, str) for v in value)
        else ("" if isinstance(value, tuple) else f"`{value}`")
    )


def rows() -> Iterator[tuple[str, FieldInfo]]:
    """Every key in the order of the model, nested ones after their parent; `[]` marks lists, `<name>` maps."""
    yield from _rows(Environment, "")


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key, field
        kind, suffix = stripped(field.annotation), ""
        while get_origin(kind) in (tuple, dict):
            suffix += "[]" if get_origin(kind) is tuple else ".<name>"
            kind = stripped(get_args(kind)[0 if get_origin(kind) is tuple else 1])
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _rows(kind, f"{key}{suffix}.")


def reference_page() -> str:
    """docs/reference/environment.md."""
    lines = []
    for key, field in rows():
        example = example_of(field)
        says = describe(field).replace("|", "\\|") + (f" Example: `{example}`." if example else "")
        lines.append(f"| `{key}` | {type_name(field.annotation)} | {_default(field)} | {says} |\n")
    return PAGE_HEAD + "".join(lines)


def key_summary(path: Path) -> tuple[str, str] | None:
    """Type and description of the key at `path`."""
    field = field_at(path)
    return (type_name(field.annotation).replace("\\|", "|"), field.description or "") if field else None


def path_of(text: str) -> Path:
    """("models", 0, "gpus") of `models[0].gpus`."""
    parts: list[str | int] = []
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", text):
        parts.append(name or int(index))
    return tuple(parts)
