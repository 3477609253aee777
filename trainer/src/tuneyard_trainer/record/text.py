# SPDX-License-Identifier: Apache-2.0
"""Foreign text (of records, answers, file names) inside Markdown: it is shown and never means anything there."""

import re
import unicodedata

_MEANT = re.compile(r"([\\`*_{}\[\]<>|~&$])")


def readable(text: str, most: int | None = None) -> str:
    """The text without characters that a terminal would obey or no file can hold; cut to `most` characters, which it says."""
    whole = len(text)
    text = text if most is None else text[:most]
    text = "".join(
        each
        if each in "\n\t" or unicodedata.category(each) not in {"Cc", "Cs"}
        else "\N{REPLACEMENT CHARACTER}"
        for each in text
    )
    return text if most is None or whole <= most else f"{text}\u2026 ({whole - most} more characters)"


def inline(text: object) -> str:
    """Foreign text within a line or a cell of a table."""
    return _MEANT.sub(r"\\\1", " ".join(readable(str(text)).split()))


def fenced(text: str) -> str:
    """Foreign text as a block of code, within a fence that is longer than any in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{readable(text)}\n{fence}"
