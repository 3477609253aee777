# SPDX-License-Identifier: Apache-2.0
"""Draws the loss curve as SVG that stands inside a page: numbers alone go in, so nothing in it needs escaping."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 28, 44
_MAX_POINTS = 600
"""More than the picture has columns for."""
_TICKS = 5

Points = Sequence[tuple[float, float]]


def draw_curve(lines: Sequence[Mapping[str, Any]]) -> str | None:
    """Training and validation loss over optimizer steps, from the lines of metrics.jsonl; None if there are none."""
    training, validation = (
        evenly(
            [(line["step"], line[key]) for line in lines if math.isfinite(line.get(key, math.nan))],
            _MAX_POINTS,
        )
        for key in ("loss", "validationLoss")
    )
    points = [*training, *validation]
    if not points:
        return None
    steps, losses = zip(*points, strict=True)
    place = _Frame(min(steps), max(steps), min(losses), max(losses))
    label = f"Loss over optimizer steps, from step {min(steps)} to {max(steps)}"
    return "\n".join(
        (
            f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">',
            *place.grid(),
            *_series(place, training, "training"),
            *_series(place, validation, "validation"),
            *_legend([("training", training), ("validation", validation)]),
            f'<text class="name" x="{(_LEFT + _WIDTH - _RIGHT) / 2:g}" y="{_HEIGHT - 6}">optimizer step</text>',
            "</svg>",
        )
    )


def evenly(points: list[Any], most: int) -> list[Any]:
    """The points, or that many of them, evenly spread, with the first and the last."""
    if len(points) <= most:
        return points
    return [points[round(at * (len(points) - 1) / (most - 1))] for at in range(most)]


class _Frame:
    """Where steps and losses are in the picture."""

    def __init__(self, first: float, last: float, low: float, high: float) -> None:
        self._steps = _ticks(first, last, least=1)
        self._losses = _ticks(low, high)
        self._first, self._last = min(first, self._steps[0]), max(last, self._steps[-1])
        self._low, self._high = min(low, self._losses[0]), max(high, self._losses[-1])

    def x(self, step: float) -> str:
        share = (step - self._first) / (self._last - self._first)
        return f"{_LEFT + share * (_WIDTH - _LEFT - _RIGHT):.1f}"

    def y(self, loss: float) -> str:
        share = (loss - self._low) / (self._high - self._low)
        return f"{_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM):.1f}"

    def grid(self) -> list[str]:
        """Lines and numbers."""
        right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        lines = []
        for loss in self._losses:
            y = self.y(loss)
            lines.append(f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{right}" y2="{y}"/>')
            lines.append(f'<text class="loss" x="{_LEFT - 6}" y="{y}">{loss:.4g}</text>')
        steps = [
            f'<text class="step" x="{self.x(step)}" y="{bottom + 16}">{step:.10g}</text>'
            for step in self._steps
        ]
        return [*lines, *steps]


def _ticks(low: float, high: float, least: float = 0.0) -> list[float]:
    """Round numbers from at most `low` to at least `high`, at least `least` apart."""
    spread = (high - low) or abs(high) or 1.0
    rough = spread / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    width = max(least, next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough))
    first, last = math.floor(low / width), math.ceil(high / width)
    return [tick * width for tick in range(first, max(last, first + 1) + 1)]


def _series(place: _Frame, points: Points, name: str) -> list[str]:
    if not points:
        return []
    path = " ".join(f"{place.x(step)},{place.y(loss)}" for step, loss in points)
    drawn = [f'<polyline class="{name}" points="{path}"/>']
    if name == "validation" or len(points) == 1:
        drawn += [
            f'<circle class="{name}" cx="{place.x(step)}" cy="{place.y(loss)}" r="3"/>'
            for step, loss in points
        ]
    return drawn


def _legend(series: Sequence[tuple[str, Points]]) -> list[str]:
    drawn, x = [], _LEFT
    for name, points in series:
        if points:
            drawn += [
                f'<line class="{name}" x1="{x}" y1="12" x2="{x + 20}" y2="12"/>',
                f'<text class="key" x="{x + 26}" y="12">{name} loss</text>',
            ]
            x += 130
    return drawn
