# SPDX-License-Identifier: Apache-2.0
"""What a key influences, found out by rendering with another value: never a list that someone has to keep true."""

import copy
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from tuneyard_api.problems import Path as KeyPath

from tuneyard.catalog import catalog, pins
from tuneyard.environment.model import Environment
from tuneyard.environment.reference import field_at, stripped
from tuneyard.findings import InputError
from tuneyard.pipeline import Built
from tuneyard.render.digests import content_digests
from tuneyard.render.files import File
from tuneyard.render.tree import local_paths, render
from tuneyard.stack.resolve import resolve


def other_values(value: Any, path: KeyPath) -> list[Any]:
    """Values of the same kind that differ, likeliest to be valid first."""
    field = field_at(path)
    kind = stripped(field.annotation) if field else None
    if get_origin(kind) is Literal:
        return [choice for choice in get_args(kind) if choice != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1, value * 2]
    if isinstance(value, float):
        return [value * 1.5]
    if isinstance(value, str):
        return [f"{value}x", f"{value}1", f"{value}.1", "1.39"]
    return [None, [], {}]


def altered(built: Built, path: KeyPath, root: Path) -> tuple[File, ...] | None:
    """The files with another value at `path`, or None when no other value renders."""
    data: Any = built.loaded.environment.model_dump(mode="json", exclude_unset=False)
    holder = copy.deepcopy(data)
    place = holder
    for part in path[:-1]:
        try:
            place = place[part]
        except (KeyError, IndexError, TypeError):
            return None
    if not path or not isinstance(place, dict | list):
        return None
    current = place.get(path[-1]) if isinstance(place, dict) else place[int(path[-1])]
    for value in other_values(current, path):
        place[path[-1]] = value  # type: ignore[index]
        try:
            environment = Environment.model_validate(holder)
            stack = resolve(environment, catalog(environment), pins())
            return render(stack, content_digests(root, local_paths(stack)))
        except (ValidationError, InputError, KeyError):
            continue
    return None
