# SPDX-License-Identifier: Apache-2.0
"""Finds what a key influences by rendering with other values, so that there is no list to maintain.

One other value is not enough: an absent `use.nemo` means the preset's choice, so the first value of its kind changes
nothing. So it tries every other choice, both booleans, several numbers and texts, and no value.
"""

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from tuneyard_api.problems import Path as KeyPath
from tuneyard_api.yaml_io import load

from tuneyard.catalog import catalog, pins, static_components
from tuneyard.checks import unmet_preconditions
from tuneyard.environment.examples import example_value
from tuneyard.environment.model import Environment
from tuneyard.environment.reference import example_of, field_at, kind_at
from tuneyard.findings import InputError
from tuneyard.pipeline import Built
from tuneyard.render.digests import content_digests
from tuneyard.render.tree import local_paths, render
from tuneyard.stack.model import Stack
from tuneyard.stack.resolve import resolve
from tuneyard.views.diff import changes
from tuneyard.views.explain import resolved

ABSENT = object()
"""Stands for a removed key, in place of a value."""
DESCRIPTIONS = ("externalPostgres", "externalS3", "externalMlflow")
"""Keys that have an effect only if `use` chooses what they describe, and that this choice requires."""


_NAMING = ("name", "product")
"""Keys that give something its name."""


@dataclass(frozen=True)
class Influence:
    """The effect of other values of a key."""

    components: frozenset[str]
    """Components, and files of no component, that change, are added or are removed."""
    tried: int
    """Number of values that have another meaning and could be rendered."""
    refused: str
    """Reason why the first such value could not be rendered; empty if all could be."""


class Influences:
    """The influence of the keys of one environment."""

    def __init__(self, built: Built, root: Path) -> None:
        self._data: Any = built.loaded.environment.model_dump(mode="json")
        self._meaning = resolved(built.stack)
        self._before = {file.path: file.text for file in built.files}
        here = changes({}, {file.path: file for file in built.files})
        self._real = {change.component for change in here} | {entry.name for entry in static_components()}
        self._root = root
        self._digests: dict[str, str] = {}
        self._known: dict[str, frozenset[str] | str | None] = {}

    def of(self, path: KeyPath) -> Influence:
        """The changes of the rendered tree when the key at `path`, or any key below it, has another value."""
        components: set[str] = set()
        count, refused = 0, ""
        for place, value in other_values(self._data, path):
            question = repr((place, value))
            if question not in self._known:
                self._known[question] = self._changed(place, value)
            answer = self._known[question]
            if isinstance(answer, str):
                refused = refused or answer
            elif answer is not None:
                components |= answer
                count += 1
        return Influence(frozenset(components), count, refused)

    def _changed(self, place: KeyPath, value: Any) -> frozenset[str] | str | None:
        """The components that change, or why nothing can be rendered; None when the value means the same."""
        try:
            stack = _stack(_with(self._data, place, value))
        except (ValidationError, InputError) as error:
            return _reason(error)
        if resolved(stack) == self._meaning:
            return None
        self._digests |= content_digests(self._root, set(local_paths(stack)) - set(self._digests))
        after = {file.path: file for file in render(stack, self._digests)}
        found = {change.component for change in changes(self._before, after)}
        return frozenset(name if name in self._real else _nameless(name, value) for name in found)


def other_values(data: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """Other values for the key at `path` and for each key below it; not all of them are valid.

    Args:
        data: the environment with its defaults.
        path: the key; items of a list are keys too.
    """
    current = data
    for part in path:
        current = current[part]
    if path:
        yield from ((path, value) for value in (ABSENT, *_others(data, path, current)) if value != current)
    for key in (
        current if isinstance(current, dict) else range(len(current) if isinstance(current, list) else 0)
    ):
        yield from other_values(data, (*path, key))


def _others(data: Any, path: KeyPath, current: Any) -> list[Any]:
    key, kind = str(path[-1]), kind_at(path)
    choices = [choice for choice in get_args(kind) if isinstance(choice, str)]
    if choices or kind is bool or isinstance(current, bool):
        return choices or [True, False]
    if isinstance(current, int | float):
        return [type(current)(other) for other in (current + 1, current - 1, current * 2, current / 2)]
    if isinstance(current, str):
        next_digit = str((int(current[-1]) + 1) % 10) if current[-1:].isdigit() else ""
        made_up = [f"{current}x", f"{current[:-1]}{next_digit}", "other", *_documented(path)]
        return made_up if key in _NAMING else [*made_up, *_names_in(data)]
    if isinstance(current, dict) and get_origin(kind) is dict:
        return [{**current, **addition} for addition in _additions(data, get_args(kind)[1])]
    if isinstance(current, list) and get_origin(kind) is tuple:
        item = example_value("", get_args(kind)[0])
        return [[], *([*current, other] for other in _referring(item, _names_in(data)))]
    named = example_value(key, kind, field_at(path))
    return [named, *_names_in(data)] if kind is str else [named]


def _documented(path: KeyPath) -> list[Any]:
    """The example in the description of a key, where it has one: a value of the right form."""
    field = field_at(path)
    example = example_of(field) if field is not None else None
    return [] if example is None else [load(example).value]


def _names_in(value: Any) -> list[str]:
    """Names that the environment gives to something: other values for keys that refer to it."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    here = (
        [value[key] for key in _NAMING if isinstance(value.get(key), str)] if isinstance(value, dict) else []
    )
    return sorted({*here, *(name for child in below for name in _names_in(child))})


def _referring(item: Any, names: list[str]) -> list[Any]:
    """An item, once for each name that its placeholders may mean; the item alone when it has none."""
    text = json.dumps(item)
    return (
        [json.loads(re.sub(r'"my-[^"]*"', json.dumps(name), text)) for name in names]
        if '"my-' in text
        else [item]
    )


def _nameless(component: str, value: Any) -> str:
    """`model-<name>` in place of a component's name that comes from an invented value."""
    for text in sorted(re.findall(r'"([^"]+)"', json.dumps(value, default=repr)), key=len, reverse=True):
        if component.endswith(f"-{text}") or f"-{text}-" in component:
            return component.replace(text, "<name>")
    return component


def _additions(data: Any, kind: Any) -> list[dict[str, Any]]:
    """Keys that a map could also have: any key, or the options of any component."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return [{"example": "x"}]
    names = [component.name for component in catalog(Environment.model_validate(data))]
    return [
        {name: options} for name in names for options in ({"values": {"example": "x"}}, {"enabled": False})
    ]


def _with(data: Any, path: KeyPath, value: Any) -> Any:
    """A copy of the environment with another value at `path`."""
    altered = copy.deepcopy(data)
    holder = altered
    for part in path[:-1]:
        holder = holder[part]
    if value is ABSENT:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return altered


def _stack(data: Any) -> Stack:
    """The stack of an environment; external services are described if needed.

    Raises:
        ValidationError: it is no environment.
        InputError: it can't be rendered.
    """
    environment = Environment.model_validate(data)
    stack = resolve(environment, catalog(environment), pins())
    if unmet_preconditions(stack):
        described = {
            key: example_value(key, kind_at((key,)), field_at((key,)))
            for key in DESCRIPTIONS
            if data.get(key) is None
        }
        environment = Environment.model_validate({**data, **described})
        stack = resolve(environment, catalog(environment), pins())
    if unmet := unmet_preconditions(stack):
        raise InputError(unmet)
    return stack


def _reason(error: ValidationError | InputError) -> str:
    if isinstance(error, InputError):
        return error.findings[0].problem
    return str(error.errors()[0]["msg"])
