# SPDX-License-Identifier: Apache-2.0
"""The two ways to carry the same work: FineTuneJobs with the operator, or plain Jobs with the least possible driver.

Both create with the same number of workers and are observed by the same watch of pods.
"""

import asyncio
import itertools
import time
from collections.abc import Iterable, Mapping
from typing import Any

from tuneyard_api import names

from throughput.api_client import ApiClient, MeasuringError, cancelled, until
from throughput.timeline import Timeline
from throughput.workload import NAMESPACE, Chain, build_job

CREATORS = 16
"""Requests under way, as many as the operator's workers."""
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={names.LABEL_JOB}"
_JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
_FINE_TUNE_JOBS = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.JOB_PLURAL}"
_CORE = {"ConfigMap": "configmaps", "PersistentVolumeClaim": "persistentvolumeclaims"}


async def carry_by_operator(api: ApiClient, timeline: Timeline, endpoint: str | None) -> None:
    """Create the FineTuneJobs at once; returns when the operator has said of each that it has succeeded."""
    waiting = asyncio.Queue[str]()
    for name in timeline.tracks:
        waiting.put_nowait(name)

    def see(job: Mapping[str, Any]) -> None:
        status, name = job.get("status") or {}, job["metadata"]["name"]
        if status.get("state") == "Failed":
            raise MeasuringError(f"FineTuneJob {name} failed: {status.get('message')}")
        if status.get("state") == "Succeeded":
            timeline.saw_done(name, time.monotonic())

    async def create() -> None:
        while True:
            name = await waiting.get()
            timeline.sent(name, time.monotonic())
            await api.create(_FINE_TUNE_JOBS, build_job(name, endpoint))

    await _carry(api, timeline, {_FINE_TUNE_JOBS: see}, (create() for _ in range(CREATORS)))


async def carry_as_plain_jobs(api: ApiClient, timeline: Timeline, chains: Mapping[str, Chain]) -> None:
    """The floor: a chain's next Job is created when the one before is Complete; what has begun goes first."""
    order = itertools.count()
    waiting = asyncio.PriorityQueue[tuple[int, int, str]]()
    completed: dict[str, set[str]] = {name: set() for name in chains}
    for name in chains:
        waiting.put_nowait((1, next(order), name))

    def see(job: Mapping[str, Any]) -> None:
        name, job_name = job["metadata"]["labels"][names.LABEL_JOB], job["metadata"]["name"]
        ended = {
            condition["type"]
            for condition in job["status"].get("conditions") or ()
            if condition["status"] == "True"
        }
        if "Failed" in ended:
            raise MeasuringError(f"Job {job_name} failed")
        if "Complete" not in ended or job_name in completed[name]:
            return
        completed[name].add(job_name)
        if len(completed[name]) == len(chains[name].jobs):
            timeline.saw_done(name, time.monotonic())
        else:
            waiting.put_nowait((0, next(order), name))

    async def create() -> None:
        while True:
            _, _, name = await waiting.get()
            if not completed[name]:
                timeline.sent(name, time.monotonic())
                for body in chains[name].storage:
                    await api.create(f"/api/v1/namespaces/{NAMESPACE}/{_CORE[body['kind']]}", body)
            await api.create(_JOBS, chains[name].jobs[len(completed[name])])

    watched = f"{_JOBS}?labelSelector={names.LABEL_JOB}"
    await _carry(api, timeline, {watched: see}, (create() for _ in range(CREATORS)))


async def _carry(
    api: ApiClient, timeline: Timeline, watches: Mapping[str, Any], creators: Iterable[Any]
) -> None:
    def see_pod(pod: Mapping[str, Any]) -> None:
        timeline.saw_pod(pod, time.monotonic())

    async with api.watching({_PODS: see_pod, **watches}) as watching:
        working = [asyncio.create_task(creator) for creator in creators]
        try:
            await until(timeline.finished, [*watching, *working])
        finally:
            await cancelled(working)
