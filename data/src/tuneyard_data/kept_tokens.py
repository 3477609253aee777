# SPDX-License-Identifier: Apache-2.0
"""Tokens of records on disk, in the order in which they were read: memory does not grow with the data set."""

import io
import tempfile
import weakref
from collections.abc import Sequence
from functools import cached_property
from os import pread
from pathlib import Path
from typing import Any

import numpy as np

from tuneyard_data.columns import Column
from tuneyard_data.tokenization import TokenizedRecord

_LEARNED = np.uint32(1 << 31)
"""The bit of a token that counts in the loss; ids are far below."""


class KeptTokens:
    """The tokens of a split in one file: uint32 [all tokens], each with the bit of its loss."""

    def __init__(self, folder: Path | None) -> None:
        """Makes files in `folder` that nobody else sees: they end with this object.

        Without a folder tokens are in memory, to be added to others.
        """
        self._file: Any = io.BytesIO() if folder is None else tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._numbers = Column(np.int64, folder, width=3)

    def __len__(self) -> int:
        return len(self._numbers)

    def extend(self, records: Sequence[TokenizedRecord]) -> None:
        """Adds the next records."""
        if not records:
            return
        content = np.concatenate([record.tokens for record in records]).astype(np.uint32)
        content[np.concatenate([record.learned for record in records])] |= _LEARNED
        self._file.write(content.data)
        self._numbers.extend([(len(each.tokens), each.full_length, each.first_learned) for each in records])

    def append(self, others: "KeptTokens") -> None:
        """Adds further records, which are in memory."""
        self._file.write(others._file.getbuffer())  # noqa: SLF001  of the same class
        self._numbers.extend(others._numbers.array())  # noqa: SLF001  of the same class

    def lengths(self) -> np.ndarray:
        """int64 [records]: number of tokens of each, after truncation."""
        return self._numbers.array()[:, 0].copy()

    @cached_property
    def _starts(self) -> np.ndarray:
        """int64 [records + 1]: where each record begins; looked at once all are there."""
        self._file.flush()
        return np.concatenate([[0], np.cumsum(self.lengths())])

    def read(self, index: int) -> TokenizedRecord:
        """One record."""
        tokens, learned = self.read_all(np.asarray([index]))
        [[_, full_length, first_learned]] = self._numbers.array(index, index + 1).tolist()
        return TokenizedRecord(tokens, learned, full_length, first_learned)

    def read_all(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (int32) and whether they are learned (bool) of some records, one behind the other: [all tokens of these]."""
        number = self._file.fileno()
        starts, ends = self._starts[indices].tolist(), self._starts[indices + 1].tolist()
        parts = [pread(number, 4 * (end - start), 4 * start) for start, end in zip(starts, ends, strict=True)]
        content = np.frombuffer(b"".join(parts), dtype=np.uint32)
        return (content & ~_LEARNED).view(np.int32), content >= _LEARNED
