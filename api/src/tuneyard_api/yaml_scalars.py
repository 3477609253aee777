# SPDX-License-Identifier: Apache-2.0
"""Plain scalars: read by YAML 1.2's core schema, and written so that YAML 1.1 readers agree.

kubectl, Helm and Argo CD read YAML 1.1 as Go's yaml.v2 does: `no` is false, `1_000` is 1000 and `017` is 15. Files
that people write for them may hold no plain scalar that they misread, and a string is written plain only if no
reader of any schema could take it for anything else.
"""

import math
import re
from functools import lru_cache

from tuneyard_api.problems import shown

_CONSTANTS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **{sign + word: math.inf for sign in ("", "+") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INT = re.compile(r"[-+]?[0-9]+")
_RADIX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

_KUBECTL_WORDS: dict[str, bool] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_KUBECTL_INT = re.compile(
    r"(?P<sign>[-+]?)(0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<bin>[01]+)|0[oO]?(?P<oct>[0-7]+)|(?P<dec>0|[1-9][0-9]*))"
    r"|0b(?P<late>[-+][01]+)"
)
STRING_TAG = "tag:yaml.org,2002:str"
_FRACTION = re.compile(r"\.[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+(_[0-9]+)*)?")
_BASES = {"hex": 16, "bin": 2, "oct": 8, "dec": 10, "late": 2}

_WORDS = frozenset(
    {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", ".nan", ".inf"}
)
"""Words, in any case, that some reader takes for a boolean, a null or a number."""
_NUMBERLIKE = re.compile(r"\.?[0-9][-+0-9a-fA-FxXoO_.:tTzZ ]*")
"""Numbers of every schema, sexagesimals, dates and times; a leading sign is never written plain."""
_PLAIN = re.compile(r"[A-Za-z0-9_./]([A-Za-z0-9_./+=,()*@<>{}\[\]|!?&%$^~'\"; -]|:(?=[^ ])|(?<! )#)*")
_SPECIAL = re.compile(
    r"[^\n\x20-\x7e\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|[\u2028\u2029]"
)
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def read_plain(text: str) -> str | int | float | bool | None:
    """The value of a plain scalar.

    Raises:
        ValueError: with a sentence, for numbers that are too long.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        try:
            return int(text)
        except ValueError as error:
            raise ValueError(f"a number of {len(text)} digits is too long; try quotes") from error
    if _RADIX.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


def read_by_kubectl(text: str) -> str | int | float | bool | None:
    """The value of a plain scalar to kubectl, Helm and Argo CD: `resolve` of go.yaml.in/yaml/v2 2.4.4.

    A number that JSON does not have is infinite or not a number here; kubectl then refuses the whole file.
    """
    if text in _CONSTANTS or text in _KUBECTL_WORDS:
        return _KUBECTL_WORDS[text] if text in _KUBECTL_WORDS else _CONSTANTS[text]
    if not text.isascii() or text[0] not in "+-.0123456789":
        return text
    digits = text if text[0] == "." else text.replace("_", "")
    if found := _KUBECTL_INT.fullmatch(digits):
        kind = next(kind for kind in _BASES if found[kind] is not None)
        whole = int(f"{found['sign'] or ''}{found[kind]}", _BASES[kind])
        if -(2**63) <= whole < 2 ** (63 if found["sign"] else 64):
            return whole
    if (_FLOAT.fullmatch(digits) or _FRACTION.fullmatch(digits)) and math.isfinite(number := float(digits)):
        return number
    return text


@lru_cache(maxsize=1 << 14)
def misreading(text: str, *, is_key: bool = False) -> str | None:
    """What is wrong with a plain scalar that kubectl, Helm and Argo CD take for something else, or None.

    Raises:
        ValueError: as `read_plain`.
    """
    ours, theirs, quoted = read_plain(text), read_by_kubectl(text), f"{write_quoted(text)} in quotes"
    if isinstance(ours, float) and not math.isfinite(ours):
        return f"JSON has no such number, so kubectl can't send it (got {text}); try a finite number, or {quoted}"
    if ours == theirs and isinstance(ours, bool) == isinstance(theirs, bool):
        return None
    meant = [f"{shown(value)}, " for value in (theirs, ours) if not isinstance(value, str) and not is_key]
    other = f"{''.join(meant)}or " if meant else ""
    return f"kubectl, Helm and Argo CD read {shown(theirs)} here (got {text}); try {other}{quoted}"


def read_tagged(tag: str, text: str) -> str | int | float | bool | None:
    """The value of a scalar with one of YAML's own tags, such as `!!int "3"`.

    Raises:
        ValueError: with a sentence, when the tag is unknown or the text does not fit it.
    """
    if tag == STRING_TAG:
        return text
    kind = tag.removeprefix("tag:yaml.org,2002:")
    fitting = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}.get(kind)
    if fitting is None:
        raise ValueError(f"unknown tag (got {tag}); try the value without a tag")
    value = read_plain(text)
    if type(value) not in fitting:
        raise ValueError(f"not of tag !!{kind} (got {text}); try the value without a tag")
    return float(value) if kind == "float" and isinstance(value, int) else value


def write_float(number: float) -> str:
    """A float that both versions read as this float: YAML 1.1 wants a point in the mantissa and a signed exponent."""
    if math.isnan(number):
        return ".nan"
    if math.isinf(number):
        return ".inf" if number > 0 else "-.inf"
    mantissa, _, exponent = repr(number).partition("e")
    if not exponent:
        return mantissa
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent}"


@lru_cache(maxsize=1 << 14)
def is_plain(text: str) -> bool:
    """Whether every reader takes `text`, unquoted on one line, for this string."""
    return (
        _PLAIN.fullmatch(text) is not None
        and not text.endswith(" ")
        and not text.endswith(":")
        and text.lower() not in _WORDS
        and _NUMBERLIKE.fullmatch(text) is None
        and not text.startswith("...")
    )


def is_block(text: str) -> bool:
    """Whether `text` reads well, and the same everywhere, as a literal block."""
    lines = text.split("\n")
    return (
        len(lines) > 1
        and _SPECIAL.search(text.replace("\t", "")) is None
        and lines[0][:1] not in {"", " ", "\t"}
        and all(not line or not line.isspace() for line in lines)
    )


@lru_cache(maxsize=1 << 12)
def write_quoted(text: str) -> str:
    """`text` in double quotes; what is not printable is escaped."""
    quoted = re.sub(r'["\\\n]', lambda match: _ESCAPES[match[0]], text)
    return f'"{_SPECIAL.sub(lambda match: _escape(match[0]), quoted)}"'


def _escape(character: str) -> str:
    code = ord(character)
    return _ESCAPES.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")  # noqa: PLR2004
