# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG002  a fake takes what the port gives
"""The Cluster port on a dict: what the API server does, as far as the operator asks it."""

import copy
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from tuneyard_api import names
from tuneyard_operator.domain.conditions import api_time
from tuneyard_operator.domain.observed import SeenEvent, SeenQueue
from tuneyard_operator.ports import ClusterError, Listed, RefusedError

from support.world.deletion import set_finalizers
from support.world.merge_patch import merged
from support.world.queue import in_default_queue
from support.world.shape import AnyWorld, Name

CLAIMS = frozenset({"models", "data", "adapters"})


class Dead(BaseException):
    """SIGKILL of the operator in the middle of a pass."""


class FakeCluster:
    """The behaviour of the API server, as far as the port uses it."""

    def __init__(self, world: AnyWorld) -> None:
        self.world = world
        self.objects: dict[Name, dict[str, Any]] = {}
        self.claims_there = set(CLAIMS)
        self.refuse: dict[str, RefusedError] = {}
        self.calls: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.seen_events: tuple[SeenEvent, ...] = ()
        self.seen_queue = SeenQueue("job-a", "team-a", "insufficient unused quota")
        self.has_default_queue = False
        """Whether Kueue puts each new Job into LocalQueue `default`."""
        self.die_before: int | None = None
        self.down = False
        self._version = 100

    def _called(self, call: str) -> None:
        if self.die_before is not None and len(self.calls) >= self.die_before:
            raise Dead
        if self.down:
            raise ClusterError("no answer")
        self.calls.append(call)

    def store(self, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write an object with a new version and tell the watches."""
        self._version += 1
        stored = copy.deepcopy(dict(body))
        metadata = stored["metadata"]
        metadata["resourceVersion"] = str(self._version)
        metadata.setdefault("uid", f"uid-{self._version}")
        metadata.setdefault("creationTimestamp", api_time(self.world.now()))
        self.objects[kind, metadata.get("namespace", ""), metadata["name"]] = stored
        self.world.told.append((kind, "MODIFIED", copy.deepcopy(stored)))
        return copy.deepcopy(stored)

    def remove(self, kind: str, name: str, namespace: str = "team") -> None:
        """Delete an object and tell the watches."""
        self._version += 1
        body = self.objects.pop((kind, namespace, name))
        body["metadata"]["resourceVersion"] = str(self._version)
        self.world.told.append((kind, "DELETED", body))

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [body for (held, _, _), body in self.objects.items() if held == kind]

    async def create(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        self._called(f"create {body['kind']} {body['metadata']['name']}")
        if body["kind"] in self.refuse:
            raise self.refuse[body["kind"]]
        if (body["kind"], body["metadata"]["namespace"], body["metadata"]["name"]) in self.objects:
            return None
        return self.store(body["kind"], in_default_queue(body) if self.has_default_queue else body)

    async def replace(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        metadata = body["metadata"]
        self._called(f"update {body['kind']} {metadata['name']}")
        there = self.objects.get((body["kind"], metadata["namespace"], metadata["name"]))
        if there is None or there["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            return None
        return self.store(body["kind"], body)

    async def read(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        self._called(f"get {kind} {name}")
        if kind == "PersistentVolumeClaim" and name in self.claims_there:
            return {"kind": kind, "metadata": {"name": name, "uid": f"uid-{name}"}}
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    async def pages(self, kind: str) -> AsyncIterator[Listed]:
        self._called(f"list {kind}")
        bodies = [
            body
            for body in self.of_kind(kind)
            if kind not in {"Job", "Pod"} or names.LABEL_JOB in body["metadata"]["labels"]
        ]
        half = len(bodies) // 2
        for part in (bodies[:half], bodies[half:]):
            yield Listed(tuple(copy.deepcopy(part)), self._version)

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        self._called(f"delete {kind} {name}")
        body = self.objects.get((kind, namespace, name))
        if body is not None and body["metadata"]["uid"] == uid:
            self.world.delete(kind, name)

    async def jobs_of(self, namespace: str, name: str) -> tuple[Mapping[str, Any], ...]:
        self._called(f"list jobs of {name}")
        return tuple(
            copy.deepcopy(body)
            for body in self.of_kind("Job")
            if body["metadata"]["labels"].get(names.LABEL_JOB) == name
        )

    async def queue_of(self, namespace: str, job_uid: str, queue: str) -> SeenQueue:
        self._called(f"ask queue {queue}")
        return self.seen_queue

    async def pods_of(self, namespace: str, job: str) -> tuple[Mapping[str, Any], ...]:
        self._called(f"list pods of {job}")
        return tuple(
            copy.deepcopy(body)
            for body in self.of_kind("Pod")
            if job in {each["name"] for each in body["metadata"].get("ownerReferences", ())}
        )

    async def all_pods_of(self, namespace: str, name: str) -> tuple[Mapping[str, Any], ...]:
        self._called(f"list all pods of {name}")
        return tuple(
            copy.deepcopy(body)
            for body in self.of_kind("Pod")
            if body["metadata"]["labels"].get(names.LABEL_JOB) == name
        )

    async def claims(self, namespace: str) -> frozenset[str]:
        self._called("list claims")
        return frozenset(self.claims_there)

    async def warnings(self, namespace: str) -> tuple[SeenEvent, ...]:
        self._called("list warnings")
        return self.seen_events

    async def patch_status(
        self, namespace: str, name: str, uid: str, status: Mapping[str, Any], *, version: int
    ) -> Mapping[str, Any] | None:
        self._called("patch status")
        body = self.objects.get((names.JOB_KIND, namespace, name))
        if body is None:
            return None
        if body["metadata"]["uid"] != uid or body["metadata"]["resourceVersion"] != str(version):
            raise ClusterError("the object has been modified")
        return self.store(names.JOB_KIND, {**body, "status": merged(body.get("status") or {}, status)})

    async def set_finalizers(
        self, namespace: str, name: str, uid: str, finalizers: Sequence[str], *, version: int
    ) -> Mapping[str, Any] | None:
        self._called("patch finalizers")
        return set_finalizers(self.world, (namespace, name), uid, finalizers, version)

    async def post_event(self, namespace: str, event: Mapping[str, Any]) -> None:
        self._called(f"event {event['reason']}")
        if "Event" in self.refuse:
            raise self.refuse["Event"]
        if event["metadata"]["name"] not in {held["metadata"]["name"] for held in self.events}:
            self.events.append(dict(event))
