# SPDX-License-Identifier: Apache-2.0
"""Finds records that are equal or differ only in spelling, within a split and between splits.

Alike are texts that agree after Unicode's compatibility folding (NFKC), in lower case, without punctuation and with
one space between words. Signs that calculate (+ - < = >) count, so that two sums are not alike.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np

from tuneyard_data.examples import Example

_PUNCTUATION = re.compile(
    r"[!\"#%&'()*,./:;?@\[\\\]_`{}\u00a1\u00a7\u00ab\u00b6\u00b7\u00bb\u00bf\u2010-\u2027\u2030-\u205e\u3001-\u3003\u3008-\u3011]"
)

_ASCII_PUNCTUATION = {code: " " for code in range(128) if _PUNCTUATION.match(chr(code))}
_WIDTH = hashlib.sha256().digest_size


def exact_key(example: Example) -> bytes:
    """A key that is equal for records with the same text and the same tokens under the loss."""
    digest = hashlib.sha256()
    for piece in (piece for side in example.sides for piece in side.pieces):
        digest.update(len(piece.text).to_bytes(8, "big") + bytes([piece.is_learned]) + piece.text.encode())
    return digest.digest()


def near_key(example: Example) -> bytes:
    """A key that is equal for records that differ only in spelling; exact for text of punctuation alone."""
    text = "\0".join(filter(None, (normalised(side.text) for side in example.sides)))
    return hashlib.sha256(text.encode()).digest() if text else exact_key(example)


def normalised(text: str) -> str:
    """The normalised text, as the module describes it."""
    if text.isascii():
        # The same, in a tenth of the time.
        return " ".join(text.lower().translate(_ASCII_PUNCTUATION).split())
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_PUNCTUATION.sub(" ", folded).split())


class Keys:
    """Keys of records, 32 bytes each, side by side: a million of them take 32 MB."""

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self._bytes = bytearray()
        for key in keys:
            self.append(key)

    def __len__(self) -> int:
        return len(self._bytes) // _WIDTH

    def __getitem__(self, index: int) -> bytes:
        return bytes(self._bytes[index * _WIDTH : (index + 1) * _WIDTH])

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))

    def append(self, key: bytes) -> None:
        """Adds the key of the next record; of a shorter key, what is missing is taken for zeros."""
        self._bytes += key.ljust(_WIDTH, b"\0")

    @property
    def array(self) -> np.ndarray:
        """Bytes [len(self)]; a copy."""
        return np.frombuffer(bytes(self._bytes), dtype=f"S{_WIDTH}")

    def first_copies(self, before: "Keys | None" = None) -> np.ndarray:
        """int64 [len(before) + len(self)]: for each key the index of the first that equals it, `before` first."""
        keys = self.array if before is None else np.concatenate([before.array, self.array])
        order = np.argsort(keys, kind="stable")
        in_order = keys[order]
        is_new = np.concatenate([np.ones(min(1, len(keys)), dtype=bool), in_order[1:] != in_order[:-1]])
        first = np.empty(len(keys), dtype=np.int64)
        first[order] = order[is_new][np.cumsum(is_new) - 1]
        return first


def repeated(keys: Keys) -> list[tuple[int, int]]:
    """(index, index of its first copy) of every record that is a copy of an earlier one."""
    first = keys.first_copies()
    copies = np.flatnonzero(first != np.arange(len(keys)))
    return list(zip(copies.tolist(), first[copies].tolist(), strict=True))


def shared(keys: Keys, others: Keys) -> list[tuple[int, int]]:
    """(index, index of its first copy in `others`) of every record that is also in `others`."""
    first = keys.first_copies(others)[len(others) :]
    there = np.flatnonzero(first < len(others))
    return list(zip(there.tolist(), first[there].tolist(), strict=True))
