# SPDX-License-Identifier: Apache-2.0
"""Reads .jsonl, .json and .parquet record by record, keeping for each one the place that people can open.

Problems are collected, not raised: all of a file is looked at before anything is said.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneyard_api.pod_contract import MAX_MESSAGE
from tuneyard_api.problems import clip

from tuneyard_data.refused import DataRefused, RecordsRefused

MAX_SHOWN = 20
"""Number of problems that are shown one by one; the others are counted."""
SUFFIXES = (".jsonl", ".json", ".parquet")
_BOM = b"\xef\xbb\xbf"


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
        at = _key_positions(self.source).get(key)
        if at is None or self.place.column is None:
            return self.place
        before = self.source[:at]
        line = self.place.line + before.count("\n")
        start = self.place.column if line == self.place.line else 1
        return Place(self.place.file, line, start + at - (before.rfind("\n") + 1))


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


def read_records(path: Path, name: str, problems: Problems) -> Iterator[Record]:
    """Every record of a file that is an object; the others become problems.

    `name` is the file's name in messages, such as its path inside the claim or repository.
    """
    if path.suffix == ".parquet":
        yield from _read_parquet(path, name, problems)
    elif path.suffix == ".json":
        yield from _read_json(path, name, problems)
    else:
        yield from _read_jsonl(path, name, problems)


def _read_jsonl(path: Path, name: str, problems: Problems) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            place = Place(name, number)
            line = raw.removeprefix(_BOM) if number == 1 else raw
            text = _decode(line, place, problems)
            if text is None or not text.strip():
                continue
            text = text.rstrip("\r\n")
            try:
                value = json.loads(text)
            except json.JSONDecodeError as error:
                problems.add(Place(name, number, error.colno), _describe(error, text, error.pos))
            except (ValueError, RecursionError) as error:
                problems.add(place, _describe_limit(error))
            else:
                yield from _record(place, value, text, problems)


def _read_json(path: Path, name: str, problems: Problems) -> Iterator[Record]:
    """One array of objects, read element by element to know where each begins."""
    text = _decode(path.read_bytes().removeprefix(_BOM), Place(name, 1), problems)
    if text is None:
        return
    decoder, position = json.JSONDecoder(), _skip_space(text, 0)
    if not text.startswith("[", position):
        problems.add(
            _place_at(name, text, position),
            "expected an array of objects; try .jsonl for one object per line",
        )
        return
    position = _skip_space(text, position + 1)
    while not text.startswith("]", position):
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            problems.add(_place_at(name, text, error.pos), _describe(error, text, error.pos))
            return
        except (ValueError, RecursionError) as error:
            problems.add(_place_at(name, text, position), _describe_limit(error))
            return
        yield from _record(_place_at(name, text, position), value, text[position:end], problems)
        position = _skip_space(text, end)
        if text[position : position + 1] == ",":
            position = _skip_space(text, position + 1)
        elif text[position : position + 1] != "]":
            problems.add(
                _place_at(name, text, position), "malformed JSON: expected ',' or ']' after the object"
            )
            return


def _read_parquet(path: Path, name: str, problems: Problems) -> Iterator[Record]:
    try:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415  optional: only for files of this kind
    except ImportError:
        raise DataRefused(
            f"{name}: this image can't read parquet files; try .jsonl, or an image with tuneyard-trainer[data]"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            row = 0
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    row += 1
                    yield Record(Place(name, row, None), values)
    except (ArrowException, OSError) as error:
        problems.add(name, f"this is no readable parquet file: {error}")


def _record(place: Place, value: Any, source: str, problems: Problems) -> Iterator[Record]:
    if not isinstance(value, dict):
        problems.add(place, f"expected an object with named columns (got {_kind(value)})")
    elif "\\ud" in source.lower() and not _is_text(value):
        problems.add(place, "half of a surrogate pair, which is no text; try the whole character, or U+FFFD")
    else:
        yield Record(place, value, source)


def _is_text(value: Any) -> bool:
    """Whether every string in `value` can be written; JSON's escapes can make others."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _key_positions(source: str) -> dict[str, int]:
    """The position of each column name of a JSON object; the last one of a duplicate, whose value counts."""
    found: dict[str, int] = {}
    if not source.startswith("{"):
        return found
    decoder, position = json.JSONDecoder(), _skip_space(source, 1)
    while source.startswith('"', position):
        key, end = decoder.raw_decode(source, position)
        found[key] = position
        _, end = decoder.raw_decode(source, _skip_space(source, _skip_space(source, end) + 1))
        position = _skip_space(source, _skip_space(source, end) + 1)
    return found


def _decode(raw: bytes, place: Place, problems: Problems) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line = place.line + before.count(b"\n")
        column = len(before[before.rfind(b"\n") + 1 :].decode(errors="replace")) + 1
        problems.add(
            Place(place.file, line, column),
            f"this is not UTF-8 (got byte 0x{raw[error.start]:02x}); try to convert it",
        )
        return None


def _describe(error: json.JSONDecodeError, text: str, position: int) -> str:
    found = text[position : position + 20].splitlines()
    got = repr(found[0]) if found and found[0] else "the end"
    return f"malformed JSON: {error.msg[:1].lower()}{error.msg[1:]} (got {got})"


def _describe_limit(error: Exception) -> str:
    is_deep = isinstance(error, RecursionError)
    return "malformed JSON: " + ("nested too deeply" if is_deep else "a number of more than 4300 digits")


def _kind(value: Any) -> str:
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
        else f"{_kind(value)}, {clip(json.dumps(value, ensure_ascii=False, default=str), 40)}"
    )


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _place_at(name: str, text: str, position: int) -> Place:
    before = text[:position]
    return Place(name, before.count("\n") + 1, position - before.rfind("\n"))
