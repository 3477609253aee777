# SPDX-License-Identifier: Apache-2.0
"""Compares pins with newer ones from another components.yaml (a Renovate branch) or a list of versions. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tuneyard.findings import Finding, InputError
from tuneyard.stack.pins import Pin, read_pins


@dataclass(frozen=True)
class Upgrade:
    """One pin that could move."""

    component: str
    now: str
    newer: str
    note: str = ""
    what: str = "chart"
    """`chart`, or the key of an image."""

    @property
    def is_major(self) -> bool:
        """Whether the major version differs, so that keys of values may have changed."""
        return _numbers(self.now)[:1] != _numbers(self.newer)[:1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:4])


def upgrades(pins: Mapping[str, Pin], listed: Any, text: str, file: str) -> list[Upgrade]:
    """The versions in a file that are newer than the pins.

    Args:
        pins: those of the catalog.
        listed: the file's value: `components:` as in components.yaml, or `versions: {<component>: <version>}` where an
            entry may also be `{version, notes}`.
        text: the same file as text.
        file: its name, for messages.

    Raises:
        InputError: it is neither.
    """
    if isinstance(listed, dict) and isinstance(listed.get("components"), dict):
        try:
            return sorted(_between(pins, read_pins(text)), key=lambda u: (u.component, u.what))
        except TypeError as error:
            raise InputError(
                [Finding("upgrade", f"is not like components.yaml: {error}", file=file)]
            ) from error
    if isinstance(listed, dict) and isinstance(listed.get("versions"), dict):
        return sorted(_listed(pins, listed["versions"], file), key=lambda u: u.component)
    raise InputError(
        [
            Finding(
                "upgrade",
                "has neither components: nor versions:",
                file=file,
                hint="versions: {mlflow: 1.12.0}",
            )
        ]
    )


def _between(pins: Mapping[str, Pin], others: Mapping[str, Pin]) -> Iterator[Upgrade]:
    for name, other in others.items():
        if (pin := pins.get(name)) is None:
            continue
        if _numbers(other.version) > _numbers(pin.version):
            yield Upgrade(name, pin.version, other.version)
        for key, image in other.images.items():
            tag, old = image.rpartition(":")[2], pin.images.get(key, "").rpartition(":")[2]
            if old and _numbers(tag) > _numbers(old):
                yield Upgrade(name, old, tag, what=key)


def _listed(pins: Mapping[str, Pin], versions: Mapping[str, Any], file: str) -> Iterator[Upgrade]:
    unknown = [name for name in versions if not (pins.get(name) and pins[name].version)]
    if unknown:
        raise InputError([Finding("upgrade", f"{name} has no pinned chart", file=file) for name in unknown])
    for name, entry in versions.items():
        version, note = (entry["version"], entry.get("notes", "")) if isinstance(entry, dict) else (entry, "")
        if _numbers(str(version)) > _numbers(pins[name].version):
            yield Upgrade(name, pins[name].version, str(version), str(note))
