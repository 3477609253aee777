# SPDX-License-Identifier: Apache-2.0
"""Finds records that are equal or differ only in spelling, within a split and between splits.

Alike are texts that agree after Unicode's compatibility folding (NFKC), in lower case, without punctuation and with
one space between words. Signs that calculate (+ - < = >) count, so that two sums are not alike.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tuneyard_data.columns import Column
from tuneyard_data.examples import Example

_PUNCTUATION = re.compile(
    r"[!\"#%&'()*,./:;?@\[\\\]_`{}\u00a1\u00a7\u00ab\u00b6\u00b7\u00bb\u00bf\u2010-\u2027\u2030-\u205e\u3001-\u3003\u3008-\u3011]"
)

_PLAIN = bytes(
    ord(" ") if _PUNCTUATION.match(chr(code)) or chr(code).isspace() else ord(chr(code).lower())
    for code in range(128)
) + bytes(range(128, 256))
"""What each byte of ASCII becomes."""
_WIDTH = 16
"""Bytes of a key: among a billion records two that differ share one with a chance of 1 to 10^21."""


def _key(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_WIDTH).digest()


def exact_key(example: Example) -> bytes:
    """A key that is equal for records with the same text and the same tokens under the loss."""
    parts = []
    for piece in (piece for side in example.sides for piece in side.pieces):
        content = piece.text.encode()
        parts += [len(content).to_bytes(8, "big"), b"\1" if piece.is_learned else b"\0", content]
    return _key(b"".join(parts))


def near_key(example: Example) -> bytes:
    """A key that is equal for records that differ only in spelling; exact for text of punctuation alone."""
    content = b"\0".join(filter(None, (normalised(side.text) for side in example.sides)))
    return _key(content) if content else exact_key(example)


def normalised(text: str) -> bytes:
    """The normalised text in UTF-8, as the module describes it."""
    if text.isascii():
        # The same, in a tenth of the time.
        return b" ".join(text.encode().translate(_PLAIN).split())
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_PUNCTUATION.sub(" ", folded).split()).encode()


class Keys:
    """Keys of records, one beside the other."""

    def __init__(self, folder: Path | None = None) -> None:
        """The keys are in a file in `folder`; without one, in memory."""
        self._column = Column(f"S{_WIDTH}", folder)

    def __len__(self) -> int:
        return len(self._column)

    def extend(self, keys: Sequence[bytes]) -> None:
        """Adds the keys of the next records."""
        self._column.extend(keys)

    def append(self, others: "Keys") -> None:
        """Adds the keys of further records."""
        self._column.extend(others.array)

    @property
    def array(self) -> np.ndarray:
        """Bytes [len(self)]; a copy."""
        return self._column.array()

    def first_copies(self, before: "Keys | None" = None) -> np.ndarray:
        """int64 [len(before) + len(self)]: for each key the index of the first that equals it, `before` first."""
        keys = self.array if before is None else np.concatenate([before.array, self.array])
        order = np.argsort(keys, kind="stable")
        in_order = keys[order]
        is_new = np.concatenate([np.ones(min(1, len(keys)), dtype=bool), in_order[1:] != in_order[:-1]])
        first = np.empty(len(keys), dtype=np.int64)
        first[order] = order[is_new][np.cumsum(is_new) - 1]
        return first


def repeated(keys: Keys) -> np.ndarray:
    """int64 [copies, 2]: index and index of its first copy of every record that is a copy of an earlier one."""
    first = keys.first_copies()
    copies = np.flatnonzero(first != np.arange(len(keys)))
    return np.stack([copies, first[copies]], axis=1)


def shared(keys: Keys, others: Keys) -> np.ndarray:
    """int64 [copies, 2]: index and index of its first copy in `others` of every record that is also in `others`."""
    first = keys.first_copies(others)[len(others) :]
    there = np.flatnonzero(first < len(others))
    return np.stack([there, first[there]], axis=1)
