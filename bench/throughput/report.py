# SPDX-License-Identifier: Apache-2.0
"""Computes the result that is committed from the runs: medians, aims and whether they are met. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

Figures = Mapping[str, Any]

LEAST_THROUGHPUT_SHARE = 0.85
"""Least share of the plain Jobs' throughput."""
MOST_START_RATIO = 1.5
"""Longest median time from create to first pod, as a multiple of the plain Jobs'."""
MOST_REQUESTS_ABOVE = 4.0
"""API requests a job more than the plain Jobs'."""
MOST_MEMORY_MB = 100.0
"""Resident memory of the operator at its peak, MiB."""


@dataclass(frozen=True)
class Aim:
    """One aim and what was measured."""

    name: str
    aim: str
    measured: float
    met: bool


def judge(runs: Sequence[Figures]) -> dict[str, Any]:
    """Aims and medians, and the runs that they are from: of the quiet rounds or, when none was quiet, of all."""
    rounds = sorted({run["round"] for run in runs})
    noisy = {run["round"] for run in runs if run["noisy"]}
    judged = [number for number in rounds if number not in noisy] or rounds
    by_arm = {
        arm: [run for run in runs if run["arm"] == arm and run["round"] in judged]
        for arm in ("operator", "plainJobs")
    }
    return {
        "rounds": len(rounds),
        "judgedRounds": judged,
        "aims": [asdict(aim) for aim in aims(by_arm["operator"], by_arm["plainJobs"])],
        "medians": {arm: medians(its) for arm, its in by_arm.items()},
        "runs": list(runs),
    }


def medians(runs: Sequence[Figures]) -> dict[str, Any]:
    """The median of every number; mappings are gone into, and what only some runs have counts as 0 in the others."""
    numbers: dict[str, Any] = {}
    for name in dict.fromkeys(name for run in runs for name in run if name != "round"):
        values = [run[name] for run in runs if name in run]
        if all(isinstance(value, Mapping) for value in values):
            numbers[name] = medians(values)
        elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            numbers[name] = round(median([*values, *[0.0] * (len(runs) - len(values))]), 3)
    return numbers


def aims(operator: Sequence[Figures], plain: Sequence[Figures]) -> list[Aim]:
    """Each aim, from medians; memory from the worst run."""
    ours, floor = medians(operator), medians(plain)
    share = round(ours["jobsPerSecond"] / floor["jobsPerSecond"], 3)
    above = round(ours["requestsPerJob"] - floor["requestsPerJob"], 2)
    ratio = round(ours["createdToFirstPodMs"]["p50"] / floor["createdToFirstPodMs"]["p50"], 2)
    peak = max(run["operatorMemoryMB"]["peak"] for run in operator)
    return [
        Aim(
            "throughput, share of plain Jobs'",
            f">= {LEAST_THROUGHPUT_SHARE}",
            share,
            share >= LEAST_THROUGHPUT_SHARE,
        ),
        Aim(
            "create -> first pod p50, multiple of plain Jobs'",
            f"<= {MOST_START_RATIO:g}",
            ratio,
            ratio <= MOST_START_RATIO,
        ),
        Aim(
            "API requests a job above plain Jobs'",
            f"<= {MOST_REQUESTS_ABOVE:g}",
            above,
            above <= MOST_REQUESTS_ABOVE,
        ),
        Aim("operator's peak memory, MiB", f"<= {MOST_MEMORY_MB:g}", peak, peak <= MOST_MEMORY_MB),
    ]


_ROWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("wall, s", ("wallSeconds",)),
    ("jobs/s", ("jobsPerSecond",)),
    ("create -> first pod, ms p50", ("createdToFirstPodMs", "p50")),
    ("create -> first pod, ms p99", ("createdToFirstPodMs", "p99")),
    ("last pod ended -> done, ms p50", ("lastPodEndedToDoneMs", "p50")),
    ("last pod ended -> done, ms p99", ("lastPodEndedToDoneMs", "p99")),
    ("API requests a job", ("requestsPerJob",)),
    ("CPU of the operator, s", ("cpuSeconds", "tuneyard-operator")),
    ("CPU of the API server, s", ("cpuSeconds", "kube-apiserver")),
    ("CPU of the benchmark itself, s", ("cpuSeconds", "benchmark")),
    ("operator's memory at the start, MiB", ("operatorMemoryMB", "start")),
    ("operator's memory at its peak, MiB", ("operatorMemoryMB", "peak")),
    ("operator's memory at the end, MiB", ("operatorMemoryMB", "end")),
    ("CPU share of other processes", ("otherProcessesCpuShare",)),
)


def summary(result: Figures) -> str:
    """The result as a table for people."""
    ours, floor = result["medians"]["operator"], result["medians"]["plainJobs"]
    lines = [
        f"{result['jobs']} jobs, medians of rounds {', '.join(map(str, result['judgedRounds']))}",
        f"{'':38}{'operator':>12}{'plain Jobs':>12}",
    ]
    lines += [f"{title:38}{_cell(ours, path):>12}{_cell(floor, path):>12}" for title, path in _ROWS]
    noisy = sum(run["noisy"] for run in result["runs"])
    if noisy:
        lines.append(f"NOISY: in {noisy} of {len(result['runs'])} runs other processes took part of the CPU")
    lines += [
        f"{'met ' if aim['met'] else 'MISSED'} {aim['name']}: {aim['measured']:g} (aim {aim['aim']})"
        for aim in result["aims"]
    ]
    return "\n".join(lines)


def _cell(figures: Figures, path: Sequence[str]) -> str:
    value: Any = figures
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"
