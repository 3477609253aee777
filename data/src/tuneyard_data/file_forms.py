# SPDX-License-Identifier: Apache-2.0
"""Names what a file is that holds no records as JSON or Parquet, and what to do with it: one sentence for the whole file."""

import csv
import json
import re

from tuneyard_data.records import table_as_jsonl

_BEGINS = {
    b"version https://git-lfs": "this is the pointer that Git LFS leaves and not the file; try `git lfs pull` there",
    b"<!doctype": "this is a web page and no data; try the address of the file itself",
    b"<html": "this is a web page and no data; try the address of the file itself",
    b"<?xml": "this is XML, as stores send it for an error, and no data; try the address of the file itself, and whether it may be read",
    b"pk\x03\x04": "this is a zip archive, as sheets of Excel are too; try the file in it, plain or by gzip",
    b"\x28\xb5\x2f\xfd": "this is compressed by zstd; try it plain or by gzip",
    b"\xfd7zxz": "this is compressed by xz; try it plain or by gzip",
    b"bzh": "this is compressed by bzip2; try it plain or by gzip",
    b"\x04\x22m\x18": "this is compressed by lz4; try it plain or by gzip",
    b"7z\xbc\xaf\x27\x1c": "this is an archive of 7-Zip; try the file in it, plain or by gzip",
    b"rar!": "this is an archive of RAR; try the file in it, plain or by gzip",
    b"arrow1": "this is a file of Arrow; try it as .parquet or .jsonl",
    b"\xff\xff\xff\xff": (
        "this is a file of Arrow, as save_to_disk of Hugging Face's datasets writes it; try"
        ' datasets.load_from_disk(FOLDER).to_parquet("train.parquet")'
    ),
    b"%pdf": "this is a PDF and no data; try its text in .jsonl",
    b"sqlite format 3": "this is a database of SQLite; try its rows in .jsonl",
    b"\x80\x04": "this is a pickle of Python, which nothing here opens; try .jsonl or .parquet",
    b"\x80\x05": "this is a pickle of Python, which nothing here opens; try .jsonl or .parquet",
}
"""How files begin that hold no records that can be read, in lower case."""
_PARQUET = b"PAR1"
_TAR_AT, _TAR = 257, b"ustar"
_LOOKED_AT = 4096
_NAME_OF_COLUMN = re.compile(r'"?[^\W\d][\w-]*(?: [\w-]+)*"?')
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_SEPARATORS = {",": "CSV", "\t": "TSV", ";": "CSV", "|": "CSV"}
_TEXTS = [
    (re.compile(pattern), what)
    for pattern, what in (
        (r"outs:\s+- md5:", "this is the pointer that DVC leaves and not the file; try `dvc pull` there"),
        (
            r"\x1e\{",
            "this is a JSON text sequence (RFC 7464); try it without the byte 0x1e before each record",
        ),
        (
            r"data: ?\{",
            "this is a stream of events of a server; try the JSON behind each `data:`, one object per line",
        ),
        (r"\s*(//|#|/\*)", "this begins with a comment, and JSON has none; try one object per line alone"),
        (r"---\s|(- )?\w+:\s", "this is YAML and no JSON; try one object of JSON per line"),
        (r"", 'this is text and no JSON; try one object per line, such as {"text": "..."}'),
    )
]
"""How texts begin that are no JSON, and what to say of them; the first that fits counts."""
_MOST_LINES = 3
"""First lines of a text that are looked at."""
_OF_PANDAS = {",": "", "\t": ', sep="\\t"', ";": ', sep=";"', "|": ', sep="|"'}


def named_by_bytes(begins: bytes) -> str | None:
    """What a file is that was left, sent or compressed in the place of records; None if it may hold some."""
    lowered = begins[:64].lstrip().lower()
    if found := next((what for magic, what in _BEGINS.items() if lowered.startswith(magic)), None):
        return found
    if b".git/annex/objects" in begins[:256]:
        return "this is the pointer that git-annex leaves and not the file; try `git annex get` there"
    return None


def named_by_content(begins: bytes) -> str | None:
    """The same for the beginning of what was decompressed and is no UTF-16."""
    if begins.startswith(_PARQUET):
        return (
            "this is Parquet compressed by gzip; try it without gzip, as its columns are compressed already"
        )
    if begins[_TAR_AT:].startswith(_TAR):
        return "this is a tar archive; try the file in it, plain or by gzip"
    if b"\0" in begins[:512] and not begins.lstrip().startswith((b"{", b"[", b'"')):
        return _binary(begins)
    return _named_by_lines(begins)


def _binary(begins: bytes) -> str:
    return f"this is a binary file (it begins with {begins[:8]!r}) and no text; try .jsonl, .json or .parquet"


def _named_by_lines(begins: bytes) -> str | None:
    """What a text is whose first lines are no JSON, and None if they may be."""
    whole = begins[:_LOOKED_AT].decode(errors="replace").lstrip("\ufeff")
    lines = [line for line in re.split(r"\r\n|\r|\n", whole) if line.strip()][:_MOST_LINES]
    if not lines or any(line.lstrip(" \t").startswith(("{", "[")) or _is_json(line) for line in lines):
        return None
    if _CONTROL.search("".join(lines).lstrip("\x1e")):
        return _binary(begins)
    if separator := _separator_of(lines[0]):
        way_out = table_as_jsonl(_OF_PANDAS[separator])
        return f"this is a table in {_SEPARATORS[separator]} and no JSON; try {way_out}"
    return next(what for pattern, what in _TEXTS if pattern.match(whole))


def _separator_of(header: str) -> str | None:
    """What stands between the cells of a line that names the columns of a table."""
    for separator in _SEPARATORS:
        cells = next(csv.reader([header], delimiter=separator), [])
        if len(cells) > 1 and all(map(_NAME_OF_COLUMN.fullmatch, cells)):
            return separator
    return None


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
