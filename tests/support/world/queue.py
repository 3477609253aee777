# SPDX-License-Identifier: Apache-2.0
"""What Kueue does to a batch/v1 Job, and what the Job controller makes of it.

Kueue's webhook suspends a Job that is created; its controller lets the Job go, and suspends it again when another one
gets the place. The Job controller then deletes the pods without counting them as failed, and makes new ones later,
but none before the former have ended (podReplacementPolicy Failed).
"""

import copy
from collections.abc import Mapping
from typing import Any

from tuneyard_api import names
from tuneyard_operator.domain.conditions import api_time

from support.world.shape import AnyWorld


def in_default_queue(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A new object as Kueue's webhook lets it pass where the namespace has a LocalQueue `default`."""
    if body["kind"] != "Job":
        return body
    job = copy.deepcopy(dict(body))
    job["metadata"]["labels"].setdefault(names.LABEL_QUEUE, "default")
    job["spec"]["suspend"] = True
    return job


def is_suspended(job: Mapping[str, Any]) -> bool:
    """Whether the Job controller makes no pods of a Job."""
    return bool(job["spec"].get("suspend"))


def is_queued(job: Mapping[str, Any]) -> bool:
    """Whether Kueue has anything to say about a Job."""
    return names.LABEL_QUEUE in job["metadata"]["labels"]


def take_place(world: AnyWorld, name: str) -> None:
    """Kueue gives the place of a Job to another one, and the Job controller has counted it."""
    body = world.cluster.objects["Job", "team", name]
    status = {key: value for key, value in (body.get("status") or {}).items() if key != "startTime"}
    world.cluster.store(
        "Job", {**body, "spec": {**body["spec"], "suspend": True}, "status": {**status, "active": 0}}
    )
    for pod in world.pods_of_job(body):
        if pod["status"]["phase"] in {"Pending", "Running"}:
            world.taken.add(pod["metadata"]["uid"])
            world.delete("Pod", pod["metadata"]["name"])


def let_go(world: AnyWorld, name: str) -> None:
    """Kueue has quota for a Job."""
    body = world.cluster.objects["Job", "team", name]
    status = {**(body.get("status") or {}), "startTime": api_time(world.moment)}
    world.cluster.store("Job", {**body, "spec": {**body["spec"], "suspend": False}, "status": status})
