# SPDX-License-Identifier: Apache-2.0
"""Puts several records into one sequence, so that few tokens are padding.

Records do not see each other: position ids begin anew with each, and attention is block-diagonal: the trainer sees to both.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heappop, heappush


def pack(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Indices of records for each sequence, by best-fit decreasing; deterministic.

    Every length is at most `limit`. Sequences come in the order of their first record, records in their own
    order within a sequence. Best-fit decreasing needs at most 11/9 of the optimal number of bins, and one more
    (Johnson 1973).
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    bins: list[list[int]] = []
    rooms: list[int] = []  # the numbers of tokens that bins have left, sorted
    with_room: dict[int, list[int]] = {}  # the bins of each, as a heap
    for index in order:
        at = bisect_left(rooms, lengths[index])
        if at == len(rooms):
            bins.append([])
            left, number = limit, len(bins) - 1
        else:
            left = rooms[at]
            number = heappop(with_room[left])
            if not with_room[left]:
                del with_room[left], rooms[at]
        bins[number].append(index)
        left -= lengths[index]
        if left not in with_room:
            with_room[left] = []
            insort(rooms, left)
        heappush(with_room[left], number)
    return sorted(sorted(records) for records in bins)
