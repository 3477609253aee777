# SPDX-License-Identifier: Apache-2.0
"""Records as they were read, each with the place that people can open, and the problems of records.

Problems are collected, not raised: all of a file is looked at before anything is said.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tuneyard_api.pod_contract import MAX_MESSAGE
from tuneyard_api.problems import clip

from tuneyard_data.refused import RecordsRefused

MAX_SHOWN = 20
"""Number of problems that are shown one by one; the others are counted."""
SUFFIXES = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.gz")
"""How the names of data files end."""


_COMPRESSED = frozenset({"zip", "zst", "bz2", "xz", "lz4", "tar", "tgz", "7z"})
_SAME = {"ndjson": "jsonl", "jsonlines": "jsonl", "jl": "jsonl", "pq": "parquet"} | {
    suffix.upper(): suffix for suffix in ("jsonl", "json", "parquet")
}
"""Other endings of the same, and what they are here."""


def suffix_of(name: str) -> str | None:
    """The one of SUFFIXES that a name ends with."""
    return next((suffix for suffix in reversed(SUFFIXES) if name.endswith(suffix)), None)


def table_as_jsonl(separator: str = "") -> str:
    """The line of pandas that writes a table as .jsonl; `separator` is a further argument for what reads it."""
    return f'pandas.read_csv(FILE{separator}).to_json("train.jsonl", orient="records", lines=True)'


def wrong_suffix(name: str) -> str:
    """What to say of a file whose name ends otherwise."""
    written = name.rpartition(".")[2]
    end = written if written in _SAME else written.lower()
    if end in {"csv", "tsv"}:
        tab = ', sep="\\t"' * (end == "tsv")
        hint = f"; try {table_as_jsonl(tab)}"
    elif end in _COMPRESSED:
        hint = "; try what is in it, plain or by gzip"
    elif end == "arrow":
        hint = '; try datasets.Dataset.from_file(FILE).to_parquet("train.parquet")'
    elif end in _SAME:
        hint = f"; try the name {name[: -len(end)]}{_SAME[end]}"
    else:
        hint = ""
    return f"{name}: files must end in {', '.join(SUFFIXES)}{hint}"


@dataclass(frozen=True)
class DataFile:
    """A readable file and the split that its records belong to."""

    split: str
    path: Path
    name: str
    """Name in messages."""


@dataclass(frozen=True)
class Place:
    """The place where a record begins: `train.jsonl:12:1`; or, in a parquet file, `train.parquet:row 12`."""

    file: str
    line: int
    column: int | None = 1

    def __str__(self) -> str:
        """The place in the form that editors open."""
        return (
            f"{self.file}:row {self.line}"
            if self.column is None
            else f"{self.file}:{self.line}:{self.column}"
        )


@dataclass(frozen=True)
class Record:
    """One record as it was read."""

    place: Place
    values: dict[str, Any]
    source: str = field(repr=False, default="")
    """Text of the record, in which columns of values are found."""

    def place_of(self, key: str) -> Place:
        """The place of `key` in the text, or the record's beginning if it is not there."""
        at = key_positions(self.source).get(key)
        if at is None or self.place.column is None:
            return self.place
        before = self.source[:at]
        line = self.place.line + before.count("\n")
        start = self.place.column if line == self.place.line else 1
        return Place(self.place.file, line, start + at - (before.rfind("\n") + 1))


class RecordProblem(ValueError):  # noqa: N818  a problem of the record, not of the program
    """A record that can't be used, and why."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


class Problems:
    """The problems of the records of all splits."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self.count = 0

    def add(self, place: Place | str, message: str) -> None:
        """Add one problem; beyond MAX_SHOWN it is only counted."""
        self.count += 1
        if self.count <= MAX_SHOWN:
            self._shown.append(f"{place}: {clip(message, 400)}")

    def append(self, others: "Problems") -> None:
        """Adds problems that were found later."""
        self._shown += others._shown[: MAX_SHOWN - len(self._shown)]  # noqa: SLF001  of the same class
        self.count += others.count

    def clear(self) -> None:
        """Forgets all."""
        self._shown.clear()
        self.count = 0

    def report(self) -> str:
        """The shown problems, one per line, and the number of further ones."""
        rest = self.count - len(self._shown)
        return "\n".join([*self._shown, *([f"... and {rest} more problems"] if rest else [])])

    def raise_if_any(self) -> None:
        """Refuses the records.

        Raises:
            RecordsRefused: if there is any problem.
        """
        if not self.count:
            return
        lines = list(self._shown)
        plural = "s" if self.count != 1 else ""
        head = f"{self.count} problem{plural} in the data set:"
        while len("\n".join([head, *lines])) > MAX_MESSAGE - 60 and len(lines) > 1:
            lines.pop()
        rest = self.count - len(lines)
        message = "\n".join([head, *lines, *([f"... and {rest} more; see the log"] if rest else [])])
        raise RecordsRefused(message, self.report())


def key_positions(source: str) -> dict[str, int]:
    """The position of each column name of a JSON object; the last one of a duplicate, whose value counts."""
    found: dict[str, int] = {}
    if not source.startswith("{"):
        return found
    decoder, position = json.JSONDecoder(), skip_space(source, 1)
    while source.startswith('"', position):
        key, end = decoder.raw_decode(source, position)
        found[key] = position
        _, end = decoder.raw_decode(source, skip_space(source, skip_space(source, end) + 1))
        position = skip_space(source, skip_space(source, end) + 1)
    return found


def kind_of(value: Any) -> str:
    """`a number`: what a value of JSON is, for messages."""
    kinds = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return "null" if value is None else kinds.get(type(value), type(value).__name__)


def describe_value(value: Any) -> str:
    """`a number, 3`: for messages."""
    return (
        "null"
        if value is None
        else f"{kind_of(value)}, {clip(json.dumps(value, ensure_ascii=False, default=str), 40)}"
    )


def skip_space(text: str, position: int) -> int:
    """The position of the next character that is no white space of JSON."""
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def listed(columns: Iterable[Any]) -> str:
    """`` `a`, `b` ``: names, for messages."""
    return ", ".join(f"`{column}`" for column in columns) or "none"


def did_you_mean(wanted: Iterable[Any], known: Collection[Any], *, there: bool = False) -> str:
    """`; did you mean ...?` for the closest pair of names."""
    for name in (name for name in wanted if name not in known):
        lowered = {str(other).lower(): str(other) for other in known}
        if match := get_close_matches(str(name).lower(), list(lowered), n=1):
            meant = lowered[match[0]]
            return f"; did you mean `{meant}`?" if there else f"; did you mean `{meant}` by `{name}`?"
    return ""
