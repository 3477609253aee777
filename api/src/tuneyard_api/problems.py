# SPDX-License-Identifier: Apache-2.0
"""The format of problems in files: `file:line:col path: problem (got X); try Y`, all of them at once."""

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]
"""Keys and list indices from the root of a document."""

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_MAX_SHOWN = 60


@dataclass(frozen=True, order=True)
class Position:
    """A place in a text, both counted from 1; columns are code points."""

    line: int
    column: int


@dataclass(frozen=True, order=True)
class LocatedProblem:
    """One thing that is wrong with a file, and where."""

    file: str
    position: Position
    path: str
    """Such as `spec.training.seed`; empty when the text is not YAML at all."""
    message: str

    def __str__(self) -> str:
        """`job.yaml:7:5 spec.method: ...`."""
        place = f"{self.file}:{self.position.line}:{self.position.column}"
        return f"{place} {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class InputRefused(ValueError):  # noqa: N818  the input is refused; nothing went wrong
    """A file that can't be used, with all that is wrong with it in the order of its lines."""

    def __init__(self, problems: Iterable[LocatedProblem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def path_text(path: Path) -> str:
    """`spec.tolerations[0].key`; keys that are not plain words are quoted in brackets."""
    parts = []
    for part in path:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif _PLAIN_KEY.fullmatch(part):
            parts.append(f".{part}")
        else:
            parts.append(f"[{json.dumps(part, ensure_ascii=False)}]")
    return "".join(parts).removeprefix(".")


def shown(value: Any) -> str:
    """A value as a message quotes it: JSON, cut where it is long."""
    return clip(json.dumps(value, ensure_ascii=False, default=str), _MAX_SHOWN)


def clip(text: str, limit: int) -> str:
    """`text` in at most `limit` characters: its start and an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, if one is near; case does not matter."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None
