# SPDX-License-Identifier: Apache-2.0
"""How long records are, counted while they are read: memory grows with different lengths, not with records."""

from collections import Counter
from collections.abc import Sequence
from math import ceil

import numpy as np

LIMITS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
"""Sequence lengths at which the report says what would be truncated."""


class LengthCounts:
    """The number of tokens of every record before truncation; the number of characters where there is no model."""

    def __init__(self) -> None:
        self._counts = Counter[int]()
        self._dropped = np.zeros(len(LIMITS), dtype=np.int64)
        self.has_tokens = False

    def add(self, lengths: Sequence[int], first_learned: Sequence[int] | None) -> None:
        """Adds records; `first_learned` is the place of each record's first token under the loss, or its length, if there is none."""
        self._counts.update(lengths)
        if first_learned is not None:
            self.has_tokens = True
            # A record without any learned token is dropped at every limit.
            kept = np.minimum(np.asarray(lengths), np.asarray(LIMITS)[:, None])
            self._dropped += (np.asarray(first_learned) >= kept).sum(axis=1)

    def append(self, others: "LengthCounts") -> None:
        """Adds further records."""
        self._counts.update(others._counts)  # noqa: SLF001  of the same class
        self._dropped += others._dropped  # noqa: SLF001  of the same class
        self.has_tokens |= others.has_tokens

    @property
    def counts(self) -> dict[int, int]:
        """Records of each length."""
        return self._counts

    @property
    def shortest(self) -> int:
        """The least length."""
        return min(self._counts)

    @property
    def longest(self) -> int:
        """The greatest length."""
        return max(self._counts)

    def above(self, limit: int) -> int:
        """The number of longer records."""
        return sum(count for length, count in self._counts.items() if length > limit)

    def dropped_at(self, limit: int) -> int:
        """Records of which nothing learned would be left within a limit, one of LIMITS."""
        return int(self._dropped[LIMITS.index(limit)])

    def percentile(self, percent: int) -> int:
        """The least length that `percent` of 100 records do not exceed (nearest rank)."""
        rank, done = max(1, ceil(self._counts.total() * percent / 100)), 0
        for length in sorted(self._counts):
            done += self._counts[length]
            if done >= rank:
                return length
        raise ValueError("no records")
