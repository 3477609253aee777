# SPDX-License-Identifier: Apache-2.0
"""The speed of a training, and metrics.jsonl, from which the loss curve is drawn.

One line per optimizer step (`step`, `loss`, `learningRate`, `tokensPerSecond`), and one per measurement (`step`,
`validationLoss`).
"""

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any


class MetricsFile:
    """The file while it is written."""

    def __init__(self, path: Path, *, after_step: int) -> None:
        """Keeps the lines up to `after_step`, but its measurement, which a resumed run makes again."""
        self._path = path
        kept = [
            line
            for line in read_metrics(path)
            if line["step"] < after_step or (line["step"] == after_step and "loss" in line)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def add(self, **values: float) -> None:
        """One line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole line; a torn last one is left out."""
    lines = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
    return lines


@dataclass
class StepPace:
    """One step."""

    tokens: int = 0
    seconds: float = 0.0


class Pace:
    """Speed over the latest steps."""

    def __init__(self, steps: int = 20) -> None:
        self._steps: deque[StepPace] = deque(maxlen=steps)

    @contextmanager
    def step(self) -> Iterator[StepPace]:
        """Measures the time of the block, which sets the number of tokens."""
        pace, began = StepPace(), time.monotonic()
        yield pace
        pace.seconds = time.monotonic() - began
        self._steps.append(pace)

    @property
    def tokens_per_second(self) -> float:
        """0 before the first step."""
        seconds = sum(pace.seconds for pace in self._steps)
        return sum(pace.tokens for pace in self._steps) / seconds if seconds else 0.0

    @property
    def seconds_per_step(self) -> float:
        """0 before the first step."""
        return sum(pace.seconds for pace in self._steps) / len(self._steps) if self._steps else 0.0

    @property
    def median_step_seconds(self) -> float:
        """0 before the first step."""
        return median(pace.seconds for pace in self._steps) if self._steps else 0.0
