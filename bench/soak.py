# SPDX-License-Identifier: Apache-2.0
"""20 jobs on real nodes under 100 random kills: is anything lost, done twice or left behind?

Trainer processes, both replicas of the operator, kubelets, the API server and etcd are killed by SIGKILL in an order
that the seed decides. The invariants are those of the tests with faults: tests/support/faults/invariants.py.
"""

import json
import os
import signal
import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from measured_on import machine, versions
from support.bench import NAMESPACE, Bench, build_job
from support.faults.history import History
from support.faults.invariants import KINDS, Problem, find_problems, orphans, runs_by_job
from support.faults.killing import WEIGHTS, Killer
from tuneyard_local import installation, native
from tuneyard_local.cluster import Cluster, down_orphans
from tuneyard_local.errors import ClusterError
from tuneyard_local.progress import Progress

_REPOSITORY = Path(__file__).resolve().parents[1]
_RESULT = _REPOSITORY / "bench" / "results" / "soak.json"
ENDS = {"Succeeded", "Failed"}
_BETWEEN_KILLS = (2.0, 7.0)
"""Seconds between two kills, uniformly."""
_RETRY = {"maxInterruptions": 100, "backoffSeconds": 2}
"""No job gives up because it was killed often: whether one can go on is the question."""


@dataclass(frozen=True)
class Size:
    """How much is done to how many."""

    jobs: int
    kills: int
    seed: int
    limit: float
    """Seconds that the jobs may take."""


@click.command(context_settings={"show_default": True})
@click.option("--jobs", type=click.IntRange(1, 60), default=20, help="FineTuneJobs, all applied at once.")
@click.option("--kills", type=click.IntRange(0, 1000), default=100, help="Processes killed.")
@click.option("--seed", type=int, default=20_261_121, help="Decides who is killed when.")
@click.option(
    "--limit", type=click.FloatRange(60, 7200), default=2400.0, help="Seconds that the jobs may take."
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=_RESULT, help="Where the result goes."
)
def main(jobs: int, kills: int, seed: int, limit: float, out: Path) -> None:
    """Run the soak; fails when anything is lost, doubled, overlapping, orphaned or untrue."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    progress = Progress()
    for name in down_orphans():
        progress.say(f"ended cluster {name}, which an earlier run left behind")
    size = Size(jobs, kills, seed, limit)
    setting = {**asdict(size), "weights": WEIGHTS, "operatorReplicas": 2}
    head = {
        "benchmark": "soak",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions("api", "operator", "data", "trainer", "charts", "bench/soak.py"),
        "setting": setting,
    }
    try:
        parts = installation.build(progress)
        with native.running(
            f"soak-{os.getpid()}", native.NativeOptions(nodes=2, gpus=8), progress
        ) as cluster:
            installation.install(cluster, parts, NAMESPACE, progress)
            _scale(cluster)
            result = {**head, **_soak(Bench(cluster, parts, NAMESPACE), size, progress)}
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(_summary(result))
    print(f"written: {out}")
    if any(result[kind] for kind in KINDS) or result["succeeded"] != jobs:
        raise click.ClickException("not every job came through whole")


def _scale(cluster: Cluster) -> None:
    """Two replicas: killing the one that works must not need a new pod."""
    words = ("scale", f"deployment/{installation.RELEASE}", "--replicas=2")
    cluster.kubectl("-n", installation.SYSTEM_NAMESPACE, *words)


def _soak(bench: Bench, size: Size, progress: Progress) -> dict[str, Any]:
    names = [f"soak-{number:02d}" for number in range(size.jobs)]
    changes = {
        "training": {"maxSteps": 30, "maxSequenceLength": 128},
        "checkpoint": {"everySteps": 5},
        "retry": _RETRY,
    }
    with History(bench.cluster) as history:
        began = time.monotonic()
        bench.apply(*(build_job(name, **changes) for name in names))
        killer = Killer(bench.cluster, history, bench.namespace, size.seed)
        _kill_until_over(killer, history, size.kills, began + size.limit, progress)
        states = _wait_until_over(history, began + size.limit, progress)
        seconds = time.monotonic() - began
        problems = find_problems(history, bench.namespace, bench.registry())
        attempts = _attempts(history)
        runs = runs_by_job(history.happened(namespace=bench.namespace))
        bench.cluster.kubectl("-n", bench.namespace, "delete", "finetunejobs", "--all", "--timeout=100s")
        problems += _left_behind(history, bench.namespace)
    counts = Counter(problem.kind for problem in problems)
    return {
        "wallSeconds": round(seconds, 1),
        "killed": dict(sorted(killer.kills.items())),
        "kills": killer.kills.total(),
        "succeeded": states["Succeeded"],
        "failed": states["Failed"],
        "unfinished": size.jobs - states["Succeeded"] - states["Failed"],
        **{kind: counts[kind] for kind in KINDS},
        **attempts,
        "runsCompared": sum(map(len, runs.values())),
        "watchGaps": history.gaps,
        "problems": [f"{problem.kind}: {problem.words}" for problem in problems],
    }


def _kill_until_over(killer: Killer, history: History, kills: int, end: float, progress: Progress) -> None:
    while killer.kills.total() < kills and time.monotonic() < end and not _is_over(history):
        time.sleep(killer.chance.uniform(*_BETWEEN_KILLS))
        kind = killer.kill()
        if kind is not None and killer.kills.total() % 10 == 0:
            progress.say(f"{killer.kills.total()} kills, {dict(_states(history))}")


def _wait_until_over(history: History, end: float, progress: Progress) -> Counter[str]:
    progress.say(f"no more kills, {dict(_states(history))}")
    while time.monotonic() < end and not _is_over(history):
        time.sleep(2)
    return _states(history)


def _states(history: History) -> Counter[str]:
    return Counter(body.get("status", {}).get("state", "Pending") for body in history.present("FineTuneJob"))


def _is_over(history: History) -> bool:
    states = _states(history)
    return bool(states) and states.total() == sum(states[end] for end in ENDS)


def _attempts(history: History) -> dict[str, Any]:
    """How much work there was, and how much of it was done over."""
    attempts = [
        attempt
        for body in history.present("FineTuneJob")
        for attempt in body.get("status", {}).get("attempts", ())
    ]
    failed = Counter(each.get("failureClass") for each in attempts if each["outcome"] == "Failed")
    return {"attempts": len(attempts), "failedAttempts": {str(name): count for name, count in failed.items()}}


def _left_behind(history: History, namespace: str) -> list[Problem]:
    """Children that are still there a minute after all jobs were deleted."""
    end = time.monotonic() + 60
    while (left := orphans(history.api, namespace)) and time.monotonic() < end:
        time.sleep(1)
    return left


def _summary(result: dict[str, Any]) -> str:
    killed = ", ".join(f"{count} {kind}" for kind, count in result["killed"].items())
    lines = [
        f"{result['setting']['jobs']} jobs, {result['kills']} kills ({killed}), {result['wallSeconds']:.0f} s",
        f"succeeded {result['succeeded']}, failed {result['failed']}, unfinished {result['unfinished']}",
        ", ".join(f"{kind} {result[kind]}" for kind in KINDS),
        f"{result['attempts']} attempts, of which failed: {result['failedAttempts']}; {result['runsCompared']} runs compared",
    ]
    return "\n".join([*lines, *result["problems"]])


if __name__ == "__main__":
    main()
