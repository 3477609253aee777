# SPDX-License-Identifier: Apache-2.0
"""Puts several records into one sequence, so that few tokens are padding.

Records do not see each other: position ids begin anew with each, and attention is block-diagonal: the trainer sees to both.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Indices of records for each sequence, by best-fit decreasing; deterministic.

    Every length is at most `limit`. Sequences come in the order of their first record, records in their own
    order within a sequence. Best-fit decreasing needs at most 11/9 of the optimal number of bins, and one more
    (Johnson 1973).
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, bin), sorted
    for index in order:
        at = bisect_left(room, (lengths[index], -1))
        if at == len(room):
            bins.append([])
            left, number = limit, len(bins) - 1
        else:
            left, number = room.pop(at)
        bins[number].append(index)
        insort(room, (left - lengths[index], number))
    return sorted(sorted(records) for records in bins)
