# SPDX-License-Identifier: Apache-2.0
"""environments/sample.yaml: every key of the model with its sentence, and its default, or an example, or a placeholder."""

import json
import textwrap
from typing import get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tuneyard_api.yaml_io import dump

from tuneyard.environment.examples import example_value
from tuneyard.environment.model import Environment
from tuneyard.environment.reference import SAMPLE_HEAD, describe, stripped, type_name

_WIDTH = 116


def sample() -> str:
    """The text of sample.yaml. Optional keys are commented out; the others make a valid environment."""
    return SAMPLE_HEAD + "\n".join(_lines(Environment, 0, active=True)) + "\n"


def _lines(model: type[BaseModel], indent: int, *, active: bool) -> list[str]:
    lines: list[str] = []
    for name, field in model.model_fields.items():
        key, on = field.alias or name, active and field.is_required()
        lines += _comment(field, indent)
        lines += _entry(key, field, indent, on=on)
    return lines


def _comment(field: FieldInfo, indent: int) -> list[str]:
    kind = type_name(field.annotation).replace("\\|", "|").replace("`", "")
    choices = f" ({kind})" if "|" in kind else ""
    text = f"{describe(field)}{choices}"
    pad = " " * indent
    return [f"{pad}# {line}" for line in textwrap.wrap(text, _WIDTH - indent)]


def _entry(key: str, field: FieldInfo, indent: int, *, on: bool) -> list[str]:
    pad, mark = " " * indent, "" if on else "#"
    kind = stripped(field.annotation)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [f"{pad}{mark}{key}:", *_off(_lines(kind, indent + 2, active=on), off=not on)]
    inner = get_args(kind)[0] if get_origin(kind) is tuple else None
    inner = stripped(inner) if inner is not None else None
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        body = _lines(inner, indent + 2, active=on)
        return [f"{pad}{mark}{key}:", f"{pad}{mark}-", *_off(body, off=not on)]
    if (
        get_origin(kind) is dict
        and isinstance(item := stripped(get_args(kind)[1]), type)
        and issubclass(item, BaseModel)
    ):
        return [
            f"{pad}{mark}{key}:",
            f"{pad}  {mark}milvus:",
            *_off(_lines(item, indent + 4, active=on), off=not on),
        ]
    return [f"{pad}{mark}{key}: {_value(key, field)}"]


def _off(lines: list[str], *, off: bool) -> list[str]:
    return [line if not off or line.lstrip().startswith("#") else f"#{line}" for line in lines]


def _value(key: str, field: FieldInfo) -> str:
    value = example_value(key, field.annotation, field)
    return json.dumps(value) if isinstance(value, list) else dump(value).strip()
