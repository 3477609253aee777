# SPDX-License-Identifier: Apache-2.0
"""The changes that a render would make, by component, as text for people. Pure."""

import difflib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tuneyard.render.files import File


@dataclass(frozen=True)
class Change:
    """One file that differs; `before` or `after` is None when it is new or goes away."""

    path: str
    component: str
    before: str | None
    after: str | None

    def unified(self) -> str:
        """The change as a unified diff."""
        lines = difflib.unified_diff(
            (self.before or "").splitlines(keepends=True),
            (self.after or "").splitlines(keepends=True),
            f"a/{self.path}" if self.before is not None else "/dev/null",
            f"b/{self.path}" if self.after is not None else "/dev/null",
        )
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def changes(before: Mapping[str, str], after: Mapping[str, File]) -> Iterator[Change]:
    """The files that differ, by path. Indexes are left out, because they follow from the other files."""
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        text = new.text if new else None
        if old != text and not path.endswith("/index.yaml"):
            yield Change(path, new.component if new and new.component else component_of(path), old, text)


def component_of(path: str) -> str:
    """The component that a path belongs to by the layout of the tree."""
    parts = path.split("/")
    return parts[2] if parts[0] == "manifests" and len(parts) > 3 else parts[-1].removesuffix(".yaml")  # noqa: PLR2004


def summary(found: list[Change]) -> str:
    """One line for each component with the kind of change and the number of lines."""
    by_component: dict[str, list[Change]] = defaultdict(list)
    for change in found:
        by_component[change.component].append(change)
    lines = []
    for name in sorted(by_component):
        entries = by_component[name]
        if all(change.before is None for change in entries):
            word = "added"
        elif all(change.after is None for change in entries):
            word = "removed"
        else:
            word = "changed"
        diff = [
            line
            for change in entries
            for line in change.unified().splitlines()
            if line[:3] not in ("+++", "---")
        ]
        plus, minus = sum(line.startswith("+") for line in diff), sum(line.startswith("-") for line in diff)
        lines.append(f"{name}: {word} ({len(entries)} files, +{plus} -{minus})")
    return "\n".join(lines) + "\n" if lines else "no difference\n"
