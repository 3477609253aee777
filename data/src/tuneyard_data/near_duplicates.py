# SPDX-License-Identifier: Apache-2.0
"""Finds records that are equal or differ only in spelling, within a split and between splits.

Alike are texts that agree after Unicode's compatibility folding (NFKC), in lower case, without punctuation and with
one space between words. Signs that calculate (+ - < = >) count, so that two sums are not alike.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from tuneyard_data.examples import Example

_PUNCTUATION = re.compile(
    r"[!\"#%&'()*,./:;?@\[\\\]_`{}\u00a1\u00a7\u00ab\u00b6\u00b7\u00bb\u00bf\u2010-\u2027\u2030-\u205e\u3001-\u3003\u3008-\u3011]"
)


def exact_key(example: Example) -> bytes:
    """A key that is equal for records with the same text and the same tokens under the loss."""
    digest = hashlib.sha256()
    for piece in example.pieces:
        digest.update(len(piece.text).to_bytes(8, "big") + bytes([piece.is_learned]) + piece.text.encode())
    return digest.digest()


def near_key(example: Example) -> bytes:
    """A key that is equal for records that differ only in spelling; exact for text of punctuation alone."""
    text = normalised("".join(piece.text for piece in example.pieces))
    return hashlib.sha256(text.encode()).digest() if text else exact_key(example)


def normalised(text: str) -> str:
    """The normalised text, as the module describes it."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_PUNCTUATION.sub(" ", folded).split())


def repeated(keys: Sequence[bytes]) -> list[tuple[int, int]]:
    """(index, index of its first copy) of every record that is a copy of an earlier one."""
    first: dict[bytes, int] = {}
    return [(at, first[key]) for at, key in enumerate(keys) if first.setdefault(key, at) != at]


def shared(keys: Sequence[bytes], others: Sequence[bytes]) -> list[tuple[int, int]]:
    """(index, index of its first copy in `others`) of every record that is also in `others`."""
    first: dict[bytes, int] = {}
    for at, key in enumerate(others):
        first.setdefault(key, at)
    return [(at, first[key]) for at, key in enumerate(keys) if key in first]
