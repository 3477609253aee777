# SPDX-License-Identifier: Apache-2.0
"""How far a score over a few prompts may be from the score over all that could have been asked: 95 % intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z = 1.959964
"""Two-sided 95 % of the normal distribution."""
_RESAMPLES = 1000
_SEED = 20_240_101
"""Fixed, so that the same answers give the same interval."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def of_share(hits: int, of: int) -> Interval | None:
    """The Wilson interval of a share (Wilson 1927), which is right also at 0 and at 1; None of nothing."""
    if of == 0:
        return None
    share, square = hits / of, _Z * _Z / of
    centre = (share + square / 2) / (1 + square)
    half = _Z * math.sqrt(share * (1 - share) / of + square / (4 * of)) / (1 + square)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def of_mean(values: Sequence[float]) -> Interval | None:
    """The percentile bootstrap interval of a mean (Efron 1979); None where no two values differ."""
    if not values or min(values) == max(values):
        return None
    array, random = np.asarray(values, dtype=np.float64), np.random.default_rng(_SEED)
    means = [float(array[random.integers(0, len(array), len(array))].mean()) for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, (2.5, 97.5)).tolist()
    return Interval(low, high)
