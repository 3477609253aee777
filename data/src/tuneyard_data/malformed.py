# SPDX-License-Identifier: Apache-2.0
"""Says what is wrong with a text that should be JSON, and what to try."""

import json
from typing import Any

from tuneyard_data.records import kind_of

_LOOKED_AT = 200
"""Characters behind a fault that are looked at."""
_PYTHON = ("None", "True", "False", "'", "nan")


class KeyTwiceError(ValueError):
    """A key of an object that is there twice: which value is meant nobody knows."""


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        KeyTwiceError: for a key that is there twice.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in value if names.count(name) > 1)
        raise KeyTwiceError(f"the key `{twice}` is there twice in one object; try it once")
    return value


DECODER = json.JSONDecoder(object_pairs_hook=object_of)


def describe(error: json.JSONDecodeError, text: str, *, is_line: bool = False) -> str:
    """What is wrong in a text, which is one line or a whole file."""
    position = error.pos
    found = text[position : position + 20].partition("\n")[0].rstrip("\r")
    got = repr(found) if found else "the end"
    return f"malformed JSON: {error.msg[:1].lower()}{error.msg[1:]} (got {got}){_hint(error, text, is_line)}"


def describe_limit(error: Exception) -> str:
    """What is wrong with a value that is JSON and can't be taken."""
    if isinstance(error, KeyTwiceError):
        return str(error)
    is_deep = isinstance(error, RecursionError)
    return "malformed JSON: " + ("nested too deeply" if is_deep else "a number of more than 4300 digits")


def describe_no_record(value: Any, *, is_chat: bool) -> str:
    """What to say of a value of JSON in the place of a record."""
    said = f"expected an object with named columns (got {kind_of(value)})"
    if is_chat:
        return f'{said}; this is a chat: try {{"messages": [...]}} around it'
    if not isinstance(value, str):
        return said
    if value.lstrip().startswith("{"):
        return f"{said}; this is an object written as a string: try the object itself"
    return f'{said}; try {{"text": ...}} around it'


def _hint(error: json.JSONDecodeError, text: str, is_line: bool) -> str:
    """What to try, where the fault is one that people make."""
    position = error.pos
    rest = text[position : position + _LOOKED_AT]
    before = text[max(0, position - _LOOKED_AT) : position].rstrip()
    is_at_end = position >= len(text.rstrip())
    hints = (
        # A line that ends too early may go on in the next one.
        (
            is_line and is_at_end and text.startswith("{"),
            "where records have several lines, try an array of them",
        ),
        (is_at_end, "the file ends too early: it may not have been written or sent whole"),
        (is_line and error.msg.startswith("Unterminated string"), "try \\n for a line break in a string"),
        (error.msg.startswith("Invalid control"), "try \\n for a line break in a string and \\t for a tab"),
        (not before and rest.startswith(("//", "#", "/*")), "JSON has no comments"),
        (rest.startswith(_PYTHON), "this is Python's spelling: try what json.dumps writes"),
        (rest.startswith(("}", "]")) and before.endswith(","), "try it without the comma before"),
        (
            rest.startswith(",") and before.endswith("}"),
            "try lines without a comma at their end, or an array around the records",
        ),
        (error.msg.startswith("Extra data") and rest.startswith("{"), "try a line for each record"),
        (rest.startswith("\0"), "the file was not written or sent whole"),
        (rest.startswith(("\u201c", "\u201d", "\u201e")), 'try straight quotation marks (")'),
    )
    return next((f"; {what}" for is_so, what in hints if is_so), "")
