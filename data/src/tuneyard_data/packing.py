# SPDX-License-Identifier: Apache-2.0
"""Puts several records into one sequence, so that few tokens are padding.

Records do not see each other: position ids begin anew with each, and attention is block-diagonal: the trainer sees to both.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np


@dataclass(frozen=True)
class Sequences:
    """Which records are in which sequence."""

    order: np.ndarray
    """int64 [records]: their indices, sequence by sequence."""
    starts: np.ndarray
    """int64 [sequences + 1]: where each sequence begins in `order`."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[list[int]]:
        """The indices of the records of each sequence."""
        for start, end in zip(self.starts, self.starts[1:], strict=False):
            yield self.order[start:end].tolist()

    @classmethod
    def each(cls, records: int, sides: int = 1) -> "Sequences":
        """Every record in a sequence of its own, or `sides` records that follow each other."""
        return cls(np.arange(records), np.arange(0, records + 1, sides))


def pack(lengths: np.ndarray, limit: int) -> Sequences:
    """Sequences of at most `limit` tokens, by best-fit decreasing; deterministic.

    `lengths` is int64 [records], each at most `limit`. Sequences come in the order of their first record, records in their
    own order within a sequence. Best-fit decreasing needs at most 11/9 of the optimal number of bins, and one more
    (Johnson 1973).
    """
    order = np.argsort(-lengths, kind="stable")
    bin_of = np.empty(len(lengths), dtype=np.int64)
    bin_of[order] = np.fromiter(_bins(lengths[order], limit), dtype=np.int64, count=len(lengths))
    counts = np.bincount(bin_of)
    by_bin = np.argsort(bin_of, kind="stable")
    firsts = by_bin[np.cumsum(counts) - counts]
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(firsts)] = np.arange(len(counts))
    number_of = rank[bin_of]
    starts = np.concatenate([[0], np.cumsum(np.bincount(number_of))])
    return Sequences(np.argsort(number_of, kind="stable"), starts)


def _bins(lengths: np.ndarray, limit: int) -> Iterator[int]:
    """The number of the bin of each record, the longest records first."""
    shortest = int(lengths[-1]) if len(lengths) else 0
    rooms: list[
        int
    ] = []  # the numbers of tokens that bins have left, sorted; none that is too small for any record
    with_room: dict[int, list[int]] = {}  # the bins of each, as a heap
    count = 0
    for length in map(int, lengths):
        at = bisect_left(rooms, length)
        if at == len(rooms):
            left, number = limit, count
            count += 1
        else:
            left = rooms[at]
            number = heappop(with_room[left])
            if not with_room[left]:
                del with_room[left], rooms[at]
        yield number
        left -= length
        if left < shortest:
            continue
        if left not in with_room:
            with_room[left] = []
            insort(rooms, left)
        heappush(with_room[left], number)
