# SPDX-License-Identifier: Apache-2.0
"""How fast is the operator? So many FineTuneJobs carried to Succeeded, next to the same chain as plain Jobs.

Real etcd, API server, controller manager and scheduler; kwok plays nodes and pods. Each run has a control plane of
its own, and the two kinds of run alternate. What the figures mean: docs/how-to/benchmarks.md.
"""

import json
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import aiohttp
import click
from measured_on import machine, versions
from throughput.api_client import MeasuringError
from throughput.one_run import GPUS_PER_NODE, JOB_SYNCS, NODES, NOISY_SHARE, QPS, Arm, Run, run_once
from throughput.report import judge, summary
from tuneyard_local.cluster import down_orphans
from tuneyard_local.errors import ClusterError
from tuneyard_local.progress import Progress

_REPOSITORY = Path(__file__).resolve().parents[1]
_RESULT = _REPOSITORY / "bench" / "results" / "operator.json"

_SETTING = {
    "nodes": NODES,
    "gpusPerNode": GPUS_PER_NODE,
    "controllerQps": QPS,
    "concurrentJobSyncs": JOB_SYNCS,
    "noisyAboveShare": NOISY_SHARE,
}


@click.command(context_settings={"show_default": True})
@click.option("--jobs", type=click.IntRange(1, 2000), default=500, help="Jobs at once.")
@click.option("--rounds", type=click.IntRange(1, 20), default=3, help="Rounds; each runs both kinds.")
@click.option("--serve", is_flag=True, help="Have the operator see each adapter served, by a stub.")
@click.option(
    "--limit", type=click.FloatRange(10, 3600), default=300.0, help="Seconds that one run may take."
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=_RESULT, help="Where the result goes."
)
def main(jobs: int, rounds: int, serve: bool, limit: float, out: Path) -> None:
    """Measure the operator's throughput on this machine; about two minutes a round of 500 jobs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born without
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    progress = Progress()
    for name in down_orphans():
        progress.say(f"ended cluster {name}, which an earlier run left behind")
    setting = {
        "jobs": jobs,
        "serve": serve,
        "machine": machine(),
        "versions": versions("api", "operator", "bench/throughput"),
        "setting": _SETTING,
    }
    runs: list[dict[str, Any]] = []
    try:
        for number in range(1, rounds + 1):
            for arm in get_args(Arm):
                figures = run_once(Run(arm, jobs, serve, limit), progress)
                runs.append({"round": number, "arm": arm, **figures})
                progress.say(f"round {number}, {arm}: {figures['jobsPerSecond']} jobs/s")
            date = datetime.now(UTC).isoformat(timespec="seconds")
            result = {"benchmark": "operator-throughput", "date": date, **setting, **judge(runs)}
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(result, indent=1) + "\n")
    except (MeasuringError, ClusterError, aiohttp.ClientError) as error:
        raise click.ClickException(str(error)) from error
    print(summary(result))
    print(f"written: {out}")


if __name__ == "__main__":
    main()
