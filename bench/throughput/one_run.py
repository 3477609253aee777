# SPDX-License-Identifier: Apache-2.0
"""One run on a control plane of its own: bring it up, carry all jobs one way, write down what it took."""

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import uvloop
from tuneyard_api.crd import build_job_crd, build_runtime_crd
from tuneyard_api.names import workspace_name
from tuneyard_local.cluster import Cluster
from tuneyard_local.controlplane import ControlPlane, ControlPlaneOptions
from tuneyard_local.paths import locked, state_root
from tuneyard_local.progress import Progress, wait_until

from throughput.accounting import Usage, count_requests, machine_busy_seconds, process_usage, requests_per_job
from throughput.api_client import ApiClient, MeasuringError, connected
from throughput.carriers import carry_as_plain_jobs, carry_by_operator
from throughput.operator_process import running_operator
from throughput.pod_stages import render_stages
from throughput.stub_endpoint import stub_endpoint
from throughput.timeline import Timeline
from throughput.workload import (
    PREFIX,
    REGISTRY_CLAIM,
    Chain,
    build_binding_policy,
    build_chain,
    build_claim,
    build_namespace,
    build_runtime,
    build_volume,
    job_names,
)

Arm = Literal["operator", "plainJobs"]

NODES, GPUS_PER_NODE = 100, 8
QPS = 2000
"""Request rate of controller manager and scheduler: their defaults (20 to 50) would limit everything."""
JOB_SYNCS = 20
_BINDER = "persistentvolume-binder-controller"
"""Left out: see `build_binding_policy`."""
NOISY_SHARE = 0.12
"""Share of the machine's CPU time that other processes may take before a run is called noisy."""
_SETTLE_SECONDS = 5.0
"""Pause before a run, in which watches connect and the garbage collector finds the new kinds."""
_REST_SECONDS = 3.0
"""Pause after a run, before the operator's memory is read once more."""
_QUIET_WAIT_SECONDS = 60.0
_QUIET_SAMPLE_SECONDS = 3.0
_OPERATOR, _BENCHMARK = "tuneyard-operator", "benchmark"


@dataclass(frozen=True)
class Run:
    """What to do."""

    arm: Arm
    jobs: int
    serve: bool
    limit_seconds: float
    """Longest time that the jobs may take."""


def run_once(run: Run, progress: Progress) -> dict[str, Any]:
    """The figures of one run.

    Raises:
        MeasuringError: a job failed, or the jobs were not done in time.
        ClusterError: the control plane did not come up.
    """
    chains = {name: build_chain(name) for name in job_names(run.jobs)}
    with tempfile.TemporaryDirectory(prefix="tuneyard-bench-") as folder, ExitStack() as stack:
        # Two benchmarks at once would measure each other; they take turns.
        stack.enter_context(locked(state_root() / "benchmark.lock"))
        stages = Path(folder) / "stages.yaml"
        stages.write_text(render_stages(PREFIX, [chain.digest for chain in chains.values()]))
        waited = _wait_for_quiet()
        quick = (f"--kube-api-qps={QPS}", f"--kube-api-burst={2 * QPS}")
        options = ControlPlaneOptions(
            fake_nodes=NODES,
            gpus_per_fake_node=GPUS_PER_NODE,
            kwok_stages=(stages,),
            kcm_args=(*quick, f"--concurrent-job-syncs={JOB_SYNCS}", f"--controllers=*,-{_BINDER}"),
            scheduler_args=quick,
        )
        cluster = stack.enter_context(ControlPlane(f"bench-{os.getpid()}", options, progress))
        _furnish(cluster)
        pids = {name: record.pid for name, record in cluster.processes.records().items()}
        if run.arm == "operator":
            pids[_OPERATOR] = stack.enter_context(running_operator(cluster))
        progress.say(f"{run.jobs} jobs, {run.arm}")
        return {"waitedForQuietSeconds": waited, **uvloop.run(_measure(run, cluster, chains, pids))}


def _furnish(cluster: Cluster) -> None:
    cluster.apply(build_job_crd(), build_runtime_crd())
    cluster.apply(*build_binding_policy(), build_namespace())
    probe = json.dumps(build_claim("probe"))

    def is_bound_at_once() -> bool:
        made = cluster.kubectl("create", "--dry-run=server", "-o=json", "-f=-", stdin=probe)
        return made.returncode == 0 and json.loads(made.stdout)["spec"].get("volumeName") == "probe"

    wait_until("claims to be bound at once", is_bound_at_once, 30, pause=0.5)
    cluster.apply(build_runtime(), build_volume(REGISTRY_CLAIM), build_claim(REGISTRY_CLAIM))


async def _measure(
    run: Run, cluster: Cluster, chains: Mapping[str, Chain], pids: Mapping[str, int]
) -> dict[str, Any]:
    timeline = Timeline(chains)
    async with connected(cluster) as api, stub_endpoint(chains) as stub:
        for name in chains:
            await api.create("/api/v1/persistentvolumes", build_volume(workspace_name(name)))
        await asyncio.sleep(_SETTLE_SECONDS)
        before, requests = _usage(pids), count_requests(await api.text("/metrics"))
        busy, began = _busy(), time.monotonic()
        try:
            async with asyncio.timeout(run.limit_seconds):
                await _carry(run, api, timeline, chains, stub)
        except TimeoutError as error:
            raise MeasuringError(
                f"{timeline.left} of {run.jobs} jobs not done in {run.limit_seconds} s"
            ) from error
        seconds, busy = time.monotonic() - began, _busy() - busy
        after = _usage(pids)
        cpu = {name: round(after[name].cpu_seconds - before[name].cpu_seconds, 2) for name in after}
        others = max(busy - sum(cpu.values()), 0) / seconds / (os.cpu_count() or 1)
        await asyncio.sleep(_REST_SECONDS)
        made = count_requests(await api.text("/metrics"))
        return {
            **{_camel(name): value for name, value in asdict(timeline.figures()).items()},
            "requestsPerJob": round((made.total() - requests.total()) / run.jobs, 2),
            "cpuSeconds": cpu,
            "operatorMemoryMB": _memory(before, _usage(pids)),
            "otherProcessesCpuShare": round(others, 3),
            "noisy": others > NOISY_SHARE,
            "requestsPerJobByKind": requests_per_job(requests, made, run.jobs),
        }


async def _carry(
    run: Run, api: ApiClient, timeline: Timeline, chains: Mapping[str, Chain], stub: str
) -> None:
    if run.arm == "operator":
        await carry_by_operator(api, timeline, stub if run.serve else None)
    else:
        await carry_as_plain_jobs(api, timeline, chains)


def _usage(pids: Mapping[str, int]) -> dict[str, Usage]:
    used = {name: process_usage(pid) for name, pid in pids.items()}
    own = resource.getrusage(resource.RUSAGE_SELF)
    used[_BENCHMARK] = replace(process_usage(os.getpid()), cpu_seconds=own.ru_utime + own.ru_stime)
    return used


def _memory(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, float] | None:
    if _OPERATOR not in after:
        return None
    start, end = before[_OPERATOR], after[_OPERATOR]
    return {"start": round(start.rss_mb, 1), "peak": round(end.peak_mb, 1), "end": round(end.rss_mb, 1)}


def _busy() -> float:
    return machine_busy_seconds(Path("/proc/stat").read_text())


def _wait_for_quiet() -> float:
    """Seconds waited, bounded, until other processes leave the machine alone."""
    began = time.monotonic()
    while time.monotonic() - began < _QUIET_WAIT_SECONDS:
        busy = _busy()
        time.sleep(_QUIET_SAMPLE_SECONDS)
        if (_busy() - busy) / _QUIET_SAMPLE_SECONDS / (os.cpu_count() or 1) < NOISY_SHARE:
            break
    else:
        print("the machine does not get quiet; measuring all the same", file=sys.stderr)
    return round(time.monotonic() - began, 1)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
