# SPDX-License-Identifier: Apache-2.0
"""Tokens of records on disk, in the order in which they were read: memory does not grow with the data set."""

import os
import weakref
from array import array
from pathlib import Path

import numpy as np

from tuneyard_data.tokenization import TokenizedRecord

_LEARNED = np.uint32(1 << 31)
"""The bit of a token that counts in the loss; ids are far below."""


class KeptTokens:
    """The tokens of a split in one file: uint32 [all tokens], each with the bit of its loss."""

    def __init__(self, path: Path) -> None:
        """Makes the file, which nobody else sees: it ends with this object."""
        self._file = path.open("w+b")
        path.unlink()
        weakref.finalize(self, self._file.close)
        self._numbers = array("q")
        self._starts = array("q", [0])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def append(self, record: TokenizedRecord) -> None:
        """Adds the next record."""
        content = record.tokens.astype(np.uint32)
        content[record.learned] |= _LEARNED
        self._file.write(content.data)
        self._starts.append(self._starts[-1] + len(content))
        self._numbers.extend((record.full_length, record.first_learned))

    def flush(self) -> None:
        """Makes what was added readable."""
        self._file.flush()

    def lengths(self) -> np.ndarray:
        """int64 [records]: number of tokens of each, after truncation."""
        return np.diff(np.asarray(self._starts))

    def read(self, index: int) -> TokenizedRecord:
        """One record."""
        start, end = self._starts[index], self._starts[index + 1]
        content = np.frombuffer(os.pread(self._file.fileno(), 4 * (end - start), 4 * start), dtype=np.uint32)
        return TokenizedRecord(
            (content & ~_LEARNED).view(np.int32),
            content >= _LEARNED,
            *self._numbers[2 * index : 2 * index + 2],
        )
