# SPDX-License-Identifier: Apache-2.0
"""Reads .jsonl, .json and .parquet record by record.

What a file holds decides, not its name: lines, an array, objects one behind the other, or one object around an array; UTF-8,
UTF-16 or UTF-32; compressed by gzip or not; Parquet. Parquet fills each object with every key that any row has: those that are
null are left out again.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuneyard_data.chats import holds_messages
from tuneyard_data.file_forms import named_by_bytes, named_by_content
from tuneyard_data.malformed import DECODER, describe, describe_limit, describe_no_record
from tuneyard_data.records import Place, Problems, Record, key_positions, skip_space, suffix_of
from tuneyard_data.refused import DataRefused

_BOM = b"\xef\xbb\xbf"
_ENCODINGS = {
    b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
    b"{\0": "utf-16-le", b"[\0": "utf-16-le", b"\0{": "utf-16-be", b"\0[": "utf-16-be",
}  # fmt: skip
"""Encodings other than UTF-8 by the first bytes of a file: a byte order mark, or JSON's first character."""
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_LOOKED_AT = 4096
"""Bytes at the beginning of a file by which its form is known."""
_WRAPPERS = ("data", "instances", "records", "examples", "rows")
"""Keys of an object around the array of records, as some tools write it."""
_BEGINS_WRAPPED = re.compile(
    rb'\{\s*(?:"[^"]*"\s*:\s*(?:"[^"]*"|[^\s"\[{,]+)\s*,\s*)*"(?:'
    + "|".join(_WRAPPERS).encode()
    + rb')"\s*:\s*\['
)
"""How an object around the array of records begins: with plain values before the array, if any."""


def read_records(path: Path, name: str, problems: Problems) -> Iterator[Record]:
    """Every record of a file that is an object; the others become problems.

    `name` is the file's name in messages, such as its path inside the claim or repository.
    """
    with path.open("rb") as file:
        first = file.read(_LOOKED_AT)
    if (what := named_by_bytes(first)) is not None:
        problems.add(name, what)
        return
    is_named_parquet = path.suffix == ".parquet" and not first.startswith((_GZIP, _BOM, b"{", b"["))
    if is_named_parquet and not first.startswith(_PARQUET) and (what := named_by_content(first)) is not None:
        problems.add(name, f"this is no readable parquet file: {what}")
        return
    if first.startswith(_PARQUET) or is_named_parquet:
        yield from _read_parquet(path, name, problems)
        return
    try:
        with _open(path) as file:
            begins = file.peek(_LOOKED_AT)[:_LOOKED_AT]
            if (what := named_by_content(begins)) is not None:
                problems.add(name, what)
            elif suffix_of(path.name) in {".json", ".json.gz"} or _is_one_text(begins):
                yield from _read_json(file.read(), name, problems)
            else:
                yield from _read_jsonl(file, name, problems)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        problems.add(name, f"this is no whole gzip file: {error}")
    except UnicodeError as error:
        problems.add(name, f"this is not in the encoding that its first bytes say: {error}")


def _is_one_text(begins: bytes) -> bool:
    """Whether a file is no line for each record: an array, an object around one, or objects that end elsewhere than lines do."""
    begins = begins.lstrip(_BOM).lstrip()
    if begins.startswith(b"["):
        return begins[1:].lstrip().startswith((b"{", b"]"))
    if not begins.startswith(b"{"):
        return False
    if _BEGINS_WRAPPED.match(begins):
        return True
    line, is_whole, rest = begins.partition(b"\n")
    if not is_whole and len(begins) >= _LOOKED_AT // 2:
        return b"\r" in begins
    return _goes_on(line, rest.lstrip())


def _goes_on(line: bytes, rest: bytes) -> bool:
    """Whether a line holds the beginning of an object that goes on in `rest`, or of the next object behind one.

    Before a line that begins an object it was cut.
    """
    text = line.decode(errors="replace").rstrip()
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text) and bool(rest) and not rest.startswith(b"{")
    except (ValueError, RecursionError):
        return False
    return text[end:].lstrip().startswith("{")


@contextmanager
def _open(path: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a text file in UTF-8: taken out of gzip, and converted from UTF-16 and UTF-32."""
    with path.open("rb") as file:
        plain: io.BufferedReader = file
        while plain.peek(2).startswith(_GZIP):
            plain = io.BufferedReader(gzip.GzipFile(mode="rb", fileobj=plain))
        begins = plain.peek(4)[:4]
        encoding = next((name for mark, name in _ENCODINGS.items() if begins.startswith(mark)), None)
        yield io.BufferedReader(_ToUtf8(plain, encoding)) if encoding else plain


class _ToUtf8(io.RawIOBase):
    """UTF-8 of a stream in another encoding."""

    def __init__(self, stream: io.BufferedReader, encoding: str) -> None:
        self._text = io.TextIOWrapper(stream, encoding=encoding, newline="")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or self._text.read(1 << 16).encode("utf-8", "surrogatepass")
        taken, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


def _read_jsonl(lines: Iterable[bytes], name: str, problems: Problems) -> Iterator[Record]:
    for number, raw in enumerate(lines, start=1):
        place = Place(name, number)
        # Files that were joined have a mark in the middle too.
        text = _decode(raw.lstrip(_BOM) if raw.startswith(_BOM) else raw, place, problems)
        if text is None or not text.strip():
            continue
        text = text.rstrip("\r\n")
        try:
            value = DECODER.decode(text)
        except json.JSONDecodeError as error:
            problems.add(Place(name, number, error.colno), describe(error, text, is_line=True))
        except (ValueError, RecursionError) as error:
            problems.add(place, describe_limit(error))
        else:
            yield from _record(place, value, text, problems)


class _Text:
    """A text in which places are told from its beginning to its end, each by what lies behind the one before."""

    def __init__(self, name: str, text: str) -> None:
        self.text = text
        self._name, self._at, self._line, self._line_start = name, 0, 1, 0

    def place(self, position: int) -> Place:
        """The place of a character, which is not before the one that was asked for last."""
        lines = self.text.count("\n", self._at, position)
        if lines:
            self._line, self._line_start = self._line + lines, self.text.rindex("\n", self._at, position) + 1
        self._at = position
        return Place(self._name, self._line, position - self._line_start + 1)

    def value(self, position: int, problems: Problems) -> tuple[Any, int] | None:
        """The value that begins at a position and where it ends; None, and a problem, if there is none."""
        try:
            return DECODER.raw_decode(self.text, position)
        except json.JSONDecodeError as error:
            problems.add(self.place(error.pos), describe(error, self.text))
        except (ValueError, RecursionError) as error:
            problems.add(self.place(position), describe_limit(error))
        return None


def _read_json(content: bytes, name: str, problems: Problems) -> Iterator[Record]:
    """An array of objects, perhaps inside an object, or objects one behind the other; element by element to know where each begins."""
    text = _decode(content, Place(name, 1), problems)
    if text is None:
        return
    text = text.lstrip("\ufeff")
    position = skip_space(text, 0)
    if position == len(text):
        return
    if text.startswith("[", position):
        yield from _read_array(_Text(name, text), position, problems)
        return
    wrapped = _wrapped_array(text, position) if text.startswith("{", position) else None
    if wrapped is not None:
        yield from _read_array(_Text(name, text), wrapped, problems, is_wrapped=True)
    elif text.startswith("{", position) and _is_object(text[position:].partition("\n")[0]):
        yield from _read_jsonl(content.splitlines(keepends=True), name, problems)
    elif text.startswith("{", position):
        yield from _read_objects(_Text(name, text), position, problems)
    else:
        problems.add(
            _Text(name, text).place(position),
            f"expected an array of objects, perhaps under one of the keys {', '.join(_WRAPPERS)} of an object, or one object"
            f" per line (got {text[position : position + 20]!r})",
        )


def _read_objects(file: _Text, position: int, problems: Problems) -> Iterator[Record]:
    """Objects of several lines, with nothing but white space between them."""
    while position < len(file.text):
        place, found = file.place(position), file.value(position, problems)
        if found is None:
            return
        value, end = found
        yield from _record(place, value, file.text[position:end], problems)
        position = skip_space(file.text, end)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _wrapped_array(text: str, position: int) -> int | None:
    """Where the array of an object around it begins; None if the text is no such object."""
    decoder = json.JSONDecoder()
    try:
        value, end = decoder.raw_decode(text, position)
    except (ValueError, RecursionError):
        return None
    found = [key for key in _WRAPPERS if isinstance(value.get(key), list)]
    if (
        len(found) != 1
        or text[end:].strip()
        or not all(isinstance(each, dict) for each in value[found[0]][:1])
    ):
        return None
    at = position + key_positions(text[position:end])[found[0]]
    _, at = decoder.raw_decode(text, at)
    return skip_space(text, skip_space(text, at) + 1)


def _read_array(
    file: _Text, position: int, problems: Problems, *, is_wrapped: bool = False
) -> Iterator[Record]:
    text = file.text
    position = skip_space(text, position + 1)
    while not text.startswith("]", position):
        place, found = file.place(position), file.value(position, problems)
        if found is None:
            return
        value, end = found
        yield from _record(place, value, text[position:end], problems)
        position = skip_space(text, end)
        if text[position : position + 1] == ",":
            position = skip_space(text, position + 1)
        elif text[position : position + 1] != "]":
            hint = "; the file ends before its array does: it may not have been written or sent whole"
            problems.add(
                file.place(position),
                "malformed JSON: expected ',' or ']' after the object" + hint * (position == len(text)),
            )
            return
    position = skip_space(text, position + 1)
    if position < len(text) and not is_wrapped:
        problems.add(
            file.place(position),
            "there is more behind the array of records; try one array, or one object per line",
        )


def _read_parquet(path: Path, name: str, problems: Problems) -> Iterator[Record]:
    try:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415  optional: only for files of this kind
    except ImportError:
        raise DataRefused(
            f"{name}: this image can't read parquet files; try .jsonl, or an image with tuneyard-trainer[data]"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if twice := [column for column in dict.fromkeys(names) if names.count(column) > 1]:
                problems.add(name, f"the column `{twice[0]}` is there twice; try it once")
                return
            row = 0
            for batch in file.iter_batches(batch_size=1024):
                kinds = [(field.name, field.type) for field in batch.schema if _holds_json(field.type)]
                for values in batch.to_pylist():
                    row += 1
                    values |= {key: _read_as(kind, values[key]) for key, kind in kinds}
                    yield Record(
                        Place(name, row, None), {key: _without_nulls(value) for key, value in values.items()}
                    )
    except (ArrowException, OSError, RecursionError, ValueError) as error:
        problems.add(name, f"this is no readable parquet file: {error}")


def _holds_json(kind: Any) -> bool:
    """Whether values of a type of Arrow are JSON, or have some inside."""
    return getattr(kind, "extension_name", "") == "arrow.json" or any(
        _holds_json(kind.field(at).type) for at in range(kind.num_fields)
    )


def _read_as(kind: Any, value: Any) -> Any:
    """A value of a type of Arrow with the JSON in it read: so data sets are written whose objects differ in their keys."""
    if value is None:
        return None
    if getattr(kind, "extension_name", "") == "arrow.json":
        return json.loads(value)
    if isinstance(value, dict):
        types = {kind.field(at).name: kind.field(at).type for at in range(kind.num_fields)}
        return {key: _read_as(types[key], inner) for key, inner in value.items()}
    if isinstance(value, list) and kind.num_fields == 1:
        return [_read_as(kind.field(0).type, inner) for inner in value]
    return value


def _without_nulls(value: Any) -> Any:
    """A value of Arrow without the keys of objects that are null: there each object has the keys of all."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


def _record(place: Place, value: Any, source: str, problems: Problems) -> Iterator[Record]:
    if not isinstance(value, dict):
        problems.add(place, describe_no_record(value, is_chat=holds_messages(value)))
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
