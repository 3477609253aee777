# SPDX-License-Identifier: Apache-2.0
"""The one reader and the one writer of YAML.

Read: YAML 1.2 core schema, string keys, every path with its line and column, and as errors what other readers
pass over in silence: duplicate keys, merge keys, unknown tags, aliases that explode. Written: block style, LF,
Kubernetes' own key order, and strings that no YAML 1.1 reader mistakes (`yaml_scalars`).
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tuneyard_api.problems import InputRefused, LocatedProblem, Path, Position, path_text
from tuneyard_api.yaml_scalars import (
    STRING_TAG,
    is_block,
    is_plain,
    misreading,
    read_plain,
    read_tagged,
    write_float,
    write_quoted,
)

MAX_DEPTH = 100
"""Deepest nesting that is read."""
MAX_ALIASED = 10_000
"""Values that all aliases of a document may stand for together."""
MAX_IMPLICIT_KEY = 1000
"""Characters of a key that readers find the colon after; a longer one is written as `? key`."""
_FIRST_KEYS = ("apiVersion", "kind", "metadata", "spec")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Document:
    """One document and the positions of its parts."""

    value: Any
    file: str
    positions: Mapping[Path, Position] = field(repr=False)
    """Position of each value: of its key in a mapping, of the item in a list."""
    misread: tuple[LocatedProblem, ...] = ()
    """Plain scalars that kubectl, Helm and Argo CD read as something else; no file that goes to them may have any."""
    written: Mapping[Path, str] = field(default_factory=dict, repr=False, compare=False)
    """Numbers and booleans as they are written, such as `1.30`, which is 1.3."""

    def position(self, path: Path) -> Position:
        """The position of `path`, or of the nearest part around it."""
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions[path]

    def problem(self, path: Path, message: str) -> LocatedProblem:
        """A problem at `path`."""
        return LocatedProblem(self.file, self.position(path), path_text(path), message)

    def in_quotes(self, path: Path) -> str | None:
        """What to try where a string is wanted and a number or boolean stands, such as `"1.30" in quotes`; else None."""
        return f"{write_quoted(self.written[path])} in quotes" if path in self.written else None


def load_all(text: str, file: str = "<text>") -> tuple[Document, ...]:
    """All documents of `text`; `file` is its name in messages.

    Raises:
        InputRefused: with every problem of the text up to its first syntax error.
    """
    problems: list[LocatedProblem] = []
    documents: list[Document] = []
    try:
        events = yaml.parse(text.removeprefix("\ufeff"), Loader=_Loader)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                reader = _Reader(file, events, problems)
                value = reader.read((), 0)
                misread = tuple(reader.misread)
                documents.append(Document(value, file, reader.positions, misread, reader.written))
    except yaml.reader.ReaderError as error:
        before = text[: error.position] if isinstance(error.position, int) else ""
        here = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        problems.append(LocatedProblem(file, here, "", "not text: a character that YAML does not allow"))
    except yaml.MarkedYAMLError as error:
        context = f"{error.context}, " if error.context else ""
        problems.append(
            LocatedProblem(file, _position(error.problem_mark), "", f"not YAML: {context}{error.problem}")
        )
    except _TooMuchError as error:
        problems.append(error.problem)
    if problems:
        raise InputRefused(problems)
    return tuple(documents)


def load(text: str, file: str = "<text>") -> Document:
    """The only document of `text`.

    Raises:
        InputRefused: also when there are several documents or none.
    """
    documents = load_all(text, file)
    if len(documents) != 1:
        start = documents[1].position(()) if documents else Position(1, 1)
        message = f"one document is wanted (got {len(documents)}); try a file for each"
        raise InputRefused([LocatedProblem(file, start, "", message)])
    return documents[0]


def dump(value: Any, header: str = "") -> str:
    """One document as YAML; each line of `header` becomes a comment above it.

    Raises:
        TypeError: for what JSON does not have, such as dates and keys that are not strings.
    """
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    lines: list[str] = []
    _write(lines, value, "", "")
    return comment + "\n".join(lines) + "\n"


def dump_all(values: Iterable[Any], header: str = "") -> str:
    """Several documents with `---` between them."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    return comment + "---\n".join(dump(value) for value in values)


class _TooMuchError(Exception):
    """Reading on would cost more than any honest file needs."""

    def __init__(self, problem: LocatedProblem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class _Reader:
    """Builds one document from events, as recursion that ends at MAX_DEPTH."""

    def __init__(self, file: str, events: Iterator[yaml.Event], problems: list[LocatedProblem]) -> None:
        self.file, self.events, self.problems = file, events, problems
        self.positions: dict[Path, Position] = {}
        self.misread: list[LocatedProblem] = []
        self.written: dict[Path, str] = {}
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.size = self.aliased = 0

    def read(self, path: Path, depth: int, event: yaml.Event | None = None, *, is_key: bool = False) -> Any:
        """The value whose first event comes next, or is given."""
        event = event or next(self.events)
        here = _position(event.start_mark)
        self.positions.setdefault(path, here)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), path, here)
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            raise TypeError(f"libyaml began a value with {event}")
        before = self.size
        self.size += 1
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, path, here, is_key=is_key)
        elif depth == MAX_DEPTH:
            raise self._too_much(path, here, f"nested deeper than {MAX_DEPTH} levels")
        else:
            if event.tag not in {None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}:
                self._refuse(path, here, f"unknown tag (got {event.tag}); try the value without a tag")
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            value = self._mapping(path, depth) if is_mapping else self._sequence(path, depth)
        if event.anchor:
            self.anchors[event.anchor] = (value, self.size - before)
        return value

    def _mapping(self, path: Path, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            here = _position(event.start_mark)
            # No key of a mapping is a number, so a key that is no scalar takes no other one's place.
            name = event.value if isinstance(event, yaml.ScalarEvent) else 0
            key = self.read((*path, name), depth + 1, event, is_key=True)
            if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and event.value == "<<":
                self._refuse(path, here, "merge keys are not YAML 1.2 (got <<); try writing the keys out")
            elif not isinstance(key, str):
                got = event.value if isinstance(event, yaml.ScalarEvent) else "a list, a mapping or an alias"
                self._refuse(path, here, f"keys are strings (got {got}); try quotes")
                key = str(got)
            elif key in result:
                first = self.positions[(*path, key)]
                message = f"duplicate key, first on line {first.line}; try removing one of them"
                self._refuse((*path, key), here, message)
            self.positions.setdefault((*path, key), here)
            result[key] = self.read((*path, key), depth + 1)
        return result

    def _sequence(self, path: Path, depth: int) -> list[Any]:
        result: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            result.append(self.read((*path, len(result)), depth + 1, event))
        return result

    def _scalar(self, event: yaml.ScalarEvent, path: Path, here: Position, *, is_key: bool) -> Any:
        if event.tag == "!" or not (event.tag or event.implicit[0]):
            return event.value
        try:
            value = read_tagged(event.tag, event.value) if event.tag else read_plain(event.value)
            wrong = None if event.tag == STRING_TAG else misreading(event.value, is_key=is_key)
        except ValueError as error:
            self._refuse(path, here, str(error))
            return event.value
        if wrong is not None:
            self.misread.append(LocatedProblem(self.file, here, path_text(path), wrong))
        if isinstance(value, int | float):
            self.written[path] = event.value
        return value

    def _alias(self, anchor: str, path: Path, here: Position) -> Any:
        if anchor not in self.anchors:
            self._refuse(
                path, here, f"alias without an anchor before it (got *{anchor}); try writing the value out"
            )
            return None
        value, size = self.anchors[anchor]
        self.size += size
        self.aliased += size
        if self.aliased > MAX_ALIASED:
            raise self._too_much(path, here, f"aliases stand for more than {MAX_ALIASED} values")
        return copy.deepcopy(value)

    def _refuse(self, path: Path, here: Position, message: str) -> None:
        self.problems.append(LocatedProblem(self.file, here, path_text(path), message))

    def _too_much(self, path: Path, here: Position, what: str) -> _TooMuchError:
        return _TooMuchError(
            LocatedProblem(self.file, here, path_text(path[:4]), f"{what}; try a simpler file")
        )


def _position(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)


def _write(lines: list[str], value: Any, first: str, margin: str) -> None:
    """Append the value's lines: the first one after `first`, the others after `margin`."""
    if isinstance(value, str):
        if "\n" in value and is_block(value):
            _write_literal(lines, value, first, margin)
        else:
            lines.append(first + (value if is_plain(value) else write_quoted(value)))
    elif not value:
        lines.append(first + _flow(value))
    elif isinstance(value, dict | Mapping):
        for key in _ordered(value):
            _write_entry(lines, key, value[key], first, margin)
            first = margin
    elif isinstance(value, list | tuple):
        for item in value:
            _write(lines, item, f"{first}- ", f"{margin}  ")
            first = margin
    else:
        lines.append(first + _flow(value))


def _write_entry(lines: list[str], key: Any, value: Any, first: str, margin: str) -> None:
    if not isinstance(key, str):
        raise TypeError(f"keys are strings (got {key!r})")
    name = f"{key if is_plain(key) else write_quoted(key)}:"
    if len(name) > MAX_IMPLICIT_KEY:
        lines.append(f"{first}? {name[:-1]}")
        first, name = margin, ":"
    if not value or isinstance(value, str | int | float):
        _write(lines, value, f"{first}{name} ", margin)
        return
    lines.append(first + name)
    inside = margin if isinstance(value, list | tuple) else f"{margin}  "
    _write(lines, value, inside, inside)


def _write_literal(lines: list[str], text: str, first: str, margin: str) -> None:
    body = text.rstrip("\n")
    trailing = len(text) - len(body)
    lines.append(first + {0: "|-", 1: "|"}.get(trailing, "|+"))
    lines += [f"{margin}  {line}" if line else line for line in body.split("\n")]
    lines += [""] * (trailing - 1)


def _ordered(value: Mapping[str, Any]) -> Iterable[str]:
    """Keys as given; a Kubernetes object begins as people expect."""
    if "apiVersion" not in value or "kind" not in value:
        return value
    return [*(key for key in _FIRST_KEYS if key in value), *(key for key in value if key not in _FIRST_KEYS)]


def _flow(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return write_float(value)
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, list | tuple):
        return "[]"
    raise TypeError(f"not a value of YAML or JSON: {value!r}")
