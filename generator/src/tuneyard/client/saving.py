# SPDX-License-Identifier: Apache-2.0
"""Saves FineTuneJobs and FineTuneRuntimes in a file, and makes them again from it, in this cluster or in another one.

A job that has ended must stay ended: made again without its status, it would be trained again. So it is made suspended,
gets its status, and only then its own `spec.suspend`. A job that had not ended begins anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from tuneyard_api import names

from tuneyard.client.job import Job
from tuneyard.cluster.client import ClusterClient
from tuneyard.findings import Finding, InputError

Json = dict[str, Any]
_API = f"/apis/{names.GROUP}/{names.VERSION}"
_RUNTIMES = f"{_API}/{names.RUNTIME_PLURAL}"
_DROPPED = "kubectl.kubernetes.io/last-applied-configuration"


class Saved(BaseModel):
    """The content of the file."""

    model_config = ConfigDict(extra="forbid")

    tuneyard: str
    """API version of the objects."""
    runtimes: list[Json]
    jobs: list[Json]


@dataclass(frozen=True)
class Restored:
    """What was made again, by namespace and name."""

    ended: tuple[str, ...]
    """Jobs with the end that they had."""
    anew: tuple[str, ...]
    """Jobs that had not ended, and begin anew."""
    left: tuple[str, ...]
    """What is there already and was left as it is."""


def save(cluster: ClusterClient, namespace: str | None, file: Path) -> Saved:
    """Write the jobs of a namespace, or of all, and all runtimes."""
    place = f"{_API}/namespaces/{namespace}" if namespace else _API
    saved = Saved(
        tuneyard=names.API_VERSION,
        runtimes=[_as_made(body) for body in cluster.items(_RUNTIMES)],
        jobs=[_as_made(body) for body in cluster.items(f"{place}/{names.JOB_PLURAL}")],
    )
    file.write_text(saved.model_dump_json(indent=1) + "\n")
    return saved


def restore(cluster: ClusterClient, file: Path) -> Restored:
    """Make again what a file has and the cluster has not. Namespaces, claims and Secrets must be there.

    Raises:
        InputError: the file is none of ours, or the cluster refuses an object; what was made until then stays, and
            another call goes on.
    """
    try:
        saved = Saved.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(
            [Finding("restore", f"{file} can't be read: {error}", hint="a file of backup")]
        ) from None
    ended, anew, left = list[str](), list[str](), list[str]()
    for body in saved.runtimes:
        name = body["metadata"]["name"]
        if cluster.get(f"{_RUNTIMES}/{name}") is not None:
            left.append(f"FineTuneRuntime {name}")
        else:
            cluster.create(_RUNTIMES, body)
    for body in saved.jobs:
        metadata = body["metadata"]
        name = f"{metadata['namespace']}/{metadata['name']}"
        if not _make_job(cluster, body):
            left.append(f"FineTuneJob {name}")
        elif _has_ended(body):
            ended.append(name)
        else:
            anew.append(name)
    return Restored(tuple(ended), tuple(anew), tuple(left))


def _make_job(cluster: ClusterClient, body: Json) -> bool:
    """Whether the job was made; one that an earlier call has made, and could not finish, is finished."""
    metadata, spec = body["metadata"], body["spec"]
    jobs = f"{_API}/namespaces/{metadata['namespace']}/{names.JOB_PLURAL}"
    path = f"{jobs}/{metadata['name']}"
    there = cluster.get(path)
    if there is not None and not _is_half_made(there):
        return False
    status = body.get("status") or {}
    if not _has_ended(body):
        cluster.create(jobs, {key: each for key, each in body.items() if key != "status"})
        return True
    if there is None:
        marked = {
            **metadata,
            "annotations": {**(metadata.get("annotations") or {}), names.ANNOTATION_RESTORING: "true"},
        }
        cluster.create(jobs, {**body, "metadata": marked, "spec": {**spec, "suspend": True}, "status": {}})
    cluster.merge(f"{path}/status", {"status": {"waitingFor": None, **status}})
    done = {
        "metadata": {"annotations": {names.ANNOTATION_RESTORING: None}},
        "spec": {"suspend": spec.get("suspend", False)},
    }
    cluster.merge(path, done)
    return True


def _is_half_made(body: Json) -> bool:
    return names.ANNOTATION_RESTORING in (body["metadata"].get("annotations") or {})


def _has_ended(body: Json) -> bool:
    return Job.of(
        {**body, "metadata": {"uid": "", "creationTimestamp": "1970-01-01T00:00:00Z", **body["metadata"]}}
    ).has_ended


def _as_made(body: Mapping[str, Any]) -> Json:
    """What a person would write to make the object again, and its status."""
    metadata = body["metadata"]
    annotations = {key: each for key, each in (metadata.get("annotations") or {}).items() if key != _DROPPED}
    kept: Json = {key: metadata[key] for key in ("name", "namespace", "labels") if metadata.get(key)}
    kept |= {"annotations": annotations} if annotations else {}
    made: Json = {
        "apiVersion": names.API_VERSION,
        "kind": body.get("kind") or _kind_of(metadata),
        "metadata": kept,
    }
    made["spec"] = body["spec"]
    return made | ({"status": body["status"]} if body.get("status") else {})


def _kind_of(metadata: Mapping[str, Any]) -> str:
    """Items of a list do not say their kind."""
    return names.JOB_KIND if metadata.get("namespace") else names.RUNTIME_KIND
