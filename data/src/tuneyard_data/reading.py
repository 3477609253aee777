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

from tuneyard_data.records import Place, Problems, Record, key_positions, kind_of, skip_space, suffix_of
from tuneyard_data.refused import DataRefused

_BOM = b"\xef\xbb\xbf"
_ENCODINGS = {
    b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
    b"{\0": "utf-16-le", b"[\0": "utf-16-le", b"\0{": "utf-16-be", b"\0[": "utf-16-be",
}  # fmt: skip
"""Encodings other than UTF-8 by the first bytes of a file: a byte order mark, or JSON's first character."""
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_NO_RECORDS = {
    b"version https://git-lfs": "this is the pointer that Git LFS leaves and not the file; try `git lfs pull` there",
    b"<!doctype": "this is a web page and no data; try the address of the file itself",
    b"<html": "this is a web page and no data; try the address of the file itself",
    b"pk\x03\x04": "this is a zip archive; try the file in it, plain or by gzip",
    b"\x28\xb5\x2f\xfd": "this is compressed by zstd; try it plain or by gzip",
    b"\xfd7zxz": "this is compressed by xz; try it plain or by gzip",
    b"bzh": "this is compressed by bzip2; try it plain or by gzip",
    b"arrow1": "this is a file of Arrow; try it as .parquet or .jsonl",
}
"""How files begin that hold no records that can be read, in lower case."""
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
    if (what := _no_records(path)) is not None:
        problems.add(name, what)
        return
    if path.suffix == ".parquet" or _begins_with(path, _PARQUET):
        yield from _read_parquet(path, name, problems)
        return
    try:
        with _open(path) as file:
            begins = file.peek(4096)[:4096].removeprefix(_BOM).lstrip()
            is_array = begins.startswith(b"[") and begins[1:].lstrip().startswith((b"{", b"]"))
            if suffix_of(path.name) in {".json", ".json.gz"} or is_array or _BEGINS_WRAPPED.match(begins):
                yield from _read_json(file.read(), name, problems)
            else:
                yield from _read_jsonl(file, name, problems)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        problems.add(name, f"this is no whole gzip file: {error}")
    except UnicodeError as error:
        problems.add(name, f"this is not in the encoding that its first bytes say: {error}")


def _no_records(path: Path) -> str | None:
    """What a file is that was left, sent or compressed in the place of records; None if it may hold some."""
    with path.open("rb") as file:
        begins = file.read(64)
    return next(
        (what for magic, what in _NO_RECORDS.items() if begins.lstrip().lower().startswith(magic)), None
    )


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


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
        text = _decode(raw.removeprefix(_BOM), place, problems)
        if text is None or not text.strip():
            continue
        text = text.rstrip("\r\n")
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            problems.add(Place(name, number, error.colno), _describe_line(error, text))
        except (ValueError, RecursionError) as error:
            problems.add(place, _describe_limit(error))
        else:
            yield from _record(place, value, text, problems)


class _Text:
    """A text in which places are told from its beginning to its end, each by what lies behind the one before."""

    def __init__(self, name: str, text: str) -> None:
        self.text = text
        self._name, self._at, self._line, self._line_start = name, 0, 1, 0
        self._decoder = json.JSONDecoder()

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
            return self._decoder.raw_decode(self.text, position)
        except json.JSONDecodeError as error:
            problems.add(self.place(error.pos), _describe(error, self.text, error.pos))
        except (ValueError, RecursionError) as error:
            problems.add(self.place(position), _describe_limit(error))
        return None


def _read_json(content: bytes, name: str, problems: Problems) -> Iterator[Record]:
    """An array of objects, perhaps inside an object, or objects one behind the other; element by element to know where each begins."""
    text = _decode(content.removeprefix(_BOM), Place(name, 1), problems)
    if text is None:
        return
    position = skip_space(text, 0)
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
            f"expected an array of objects, perhaps under one of the keys {', '.join(_WRAPPERS)} of an object; try .jsonl"
            " for one object per line",
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
            problems.add(file.place(position), "malformed JSON: expected ',' or ']' after the object")
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
        problems.add(place, f"expected an object with named columns (got {kind_of(value)})")
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


def _describe(error: json.JSONDecodeError, text: str, position: int) -> str:
    found = text[position : position + 20].splitlines()
    got = repr(found[0]) if found and found[0] else "the end"
    return f"malformed JSON: {error.msg[:1].lower()}{error.msg[1:]} (got {got})"


def _describe_line(error: json.JSONDecodeError, text: str) -> str:
    """The same for a line that should be a record: one that ends too early may go on in the next line."""
    is_begun = error.pos >= len(text.rstrip()) and text.startswith("{")
    hint = "; where records have several lines, try an array of them" if is_begun else ""
    return _describe(error, text, error.pos) + hint


def _describe_limit(error: Exception) -> str:
    is_deep = isinstance(error, RecursionError)
    return "malformed JSON: " + ("nested too deeply" if is_deep else "a number of more than 4300 digits")
