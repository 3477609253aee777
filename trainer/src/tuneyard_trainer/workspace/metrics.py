# SPDX-License-Identifier: Apache-2.0
"""The speed of a training, and metrics.jsonl, from which the loss curve is drawn.

One line per optimizer step (`step`, `loss`, `learningRate`, `tokensPerSecond`), and one per measurement (`step`,
`validationLoss`); each says the number of its attempt (`attempt`) and when it was written (`time`, milliseconds since 1970).
"""

import json
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tuneyard_api import durable

_MAX_TAIL_BYTES = 1 << 20
"""Most that is read on at once."""


class MetricsFile:
    """The file while it is written."""

    def __init__(self, path: Path, attempt: int, *, after_step: int) -> None:
        """Keeps the lines up to `after_step`, but its measurement, which a resumed run makes again."""
        self._path, self._attempt = path, attempt
        kept = [
            line
            for line in read_metrics(path)
            if line["step"] < after_step or (line["step"] == after_step and "loss" in line)
        ]
        # Another file in its place, so that who reads it on begins anew.
        durable.write_file(path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def add(self, **values: float) -> None:
        """One line."""
        line = values | {"attempt": self._attempt, "time": time.time_ns() // 1_000_000}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class Tail:
    """The file while somebody else writes it: each line is read once, and again when the file is another one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file, self._read = 0, 0

    def rewind(self) -> None:
        """Begin anew."""
        self._read = 0

    def read(self) -> list[dict[str, Any]]:
        """The next whole lines; none if there are none yet."""
        try:
            with self._path.open("rb") as file:
                number = os.fstat(file.fileno()).st_ino
                self._file, self._read = number, self._read if number == self._file else 0
                file.seek(self._read)
                content = file.read(_MAX_TAIL_BYTES)
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


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
