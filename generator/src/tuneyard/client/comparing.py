# SPDX-License-Identifier: Apache-2.0
"""Two jobs side by side: what was asked differently, and what came of it. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tuneyard.client.job import Job

_MEASURED = {
    "tuned loss": "result.metrics.tuned.loss",
    "tuned ROUGE-L": "result.metrics.tuned.rougeL",
    "tuned exact match": "result.metrics.tuned.exactMatch",
    "base loss": "result.metrics.base.loss",
    "base ROUGE-L": "result.metrics.base.rougeL",
    "chosen answers preferred": "result.metrics.preferences.tunedAccuracy",
    "validation loss": "training.validationLoss",
    "best step": "training.bestStep",
    "steps": "result.steps",
    "trained tokens": "training.trainedTokens",
    "tokens/s": "training.tokensPerSecond",
    "peak memory, bytes": "training.peakMemoryBytes",
    "GPU seconds": "ledger.gpuSeconds",
    "goodput, %": "ledger.goodputPercent",
    "seconds lost": "ledger.seconds.lost",
}
"""Rows of the comparison, and where status has them."""
Value = str | float | bool | None


@dataclass(frozen=True)
class Difference:
    """One row: a value of both jobs; None where one has none."""

    what: str
    left: Value
    right: Value


@dataclass(frozen=True)
class Comparison:
    """Two jobs."""

    left: str
    """`namespace/name`."""
    right: str
    spec: tuple[Difference, ...]
    """Fields of spec that differ."""
    measured: tuple[Difference, ...]
    """Every measure that at least one of them has."""


def compare(left: Job, right: Job) -> Comparison:
    """What differs between two jobs."""
    specs = [dict(_leaves(job.spec)) for job in (left, right)]
    found = [dict(_leaves(job.body.get("status") or {})) for job in (left, right)]
    rows = [Difference(what, *(status.get(path) for status in found)) for what, path in _MEASURED.items()]
    return Comparison(
        left=f"{left.namespace}/{left.name}",
        right=f"{right.namespace}/{right.name}",
        spec=tuple(
            Difference(path, *(spec.get(path) for spec in specs))
            for path in sorted(specs[0].keys() | specs[1].keys())
            if specs[0].get(path) != specs[1].get(path)
        ),
        measured=tuple(row for row in rows if (row.left, row.right) != (None, None)),
    )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{number}]")
    else:
        yield path, value
