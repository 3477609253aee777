# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG002  a fake takes what the port gives
"""A cluster in memory: the Cluster port on a dict, a kubelet that does as told, and a clock that is set.

Events reach the operator's store only when `deliver` is called, so that tests can lose and shuffle them.
"""

import copy
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from fake_pods import FakeEndpoint, FakeProgress, NoMeter
from operator_samples import NOW, job_spec, result_text, runtime_spec
from tuneyard_api import names
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import FineTuneJobStatus
from tuneyard_operator.domain.conditions import api_time
from tuneyard_operator.domain.observed import SeenEvent
from tuneyard_operator.ports import ClusterError, Listed, RefusedError
from tuneyard_operator.reconcile.gather import Gatherer
from tuneyard_operator.reconcile.queue import Key, KeyedQueue
from tuneyard_operator.reconcile.reconciler import Reconciler
from tuneyard_operator.reconcile.resync import resync
from tuneyard_operator.reconcile.store import Store

KEY = Key("team", "a")
CLAIMS = frozenset({"models", "data", "adapters"})
Name = tuple[str, str, str]


def finish(work: Coroutine[Any, Any, Any]) -> Any:
    """What it returns: nothing in this world waits, so it takes no event loop, which costs more than a pass."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a fake has waited for something")


class Dead(BaseException):
    """SIGKILL of the operator in the middle of a pass."""


class FakeCluster:
    """What the API server does, as far as the port asks it."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.objects: dict[Name, dict[str, Any]] = {}
        self.claims_there = set(CLAIMS)
        self.refuse: dict[str, RefusedError] = {}
        self.calls: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.seen_events: tuple[SeenEvent, ...] = ()
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
        body = copy.deepcopy(dict(body))
        metadata = body["metadata"]
        metadata["resourceVersion"] = str(self._version)
        metadata.setdefault("uid", f"uid-{self._version}")
        metadata.setdefault("creationTimestamp", api_time(self.world.now()))
        self.objects[kind, metadata.get("namespace", ""), metadata["name"]] = body
        self.world.told.append((kind, "MODIFIED", copy.deepcopy(body)))
        return copy.deepcopy(body)

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
        return self.store(body["kind"], body)

    async def replace(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        metadata = body["metadata"]
        self._called(f"update {body['kind']} {metadata['name']}")
        there = self.objects.get((body["kind"], metadata["namespace"], metadata["name"]))
        if there is None or there["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            return None
        return self.store(body["kind"], body)

    async def read(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        self._called(f"get {kind} {name}")
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

    async def post_event(self, namespace: str, event: Mapping[str, Any]) -> None:
        self._called(f"event {event['reason']}")
        if event["metadata"]["name"] not in {held["metadata"]["name"] for held in self.events}:
            self.events.append(dict(event))


class World:
    """One FineTuneJob `team/a`, a runtime `hf`, and an operator that can be killed."""

    cluster_class = FakeCluster

    def __init__(
        self, *, spec: Mapping[str, Any] | None = None, runtime: Mapping[str, Any] | None = None
    ) -> None:
        self.moment = NOW
        self.told: list[tuple[str, str, dict[str, Any]]] = []
        self.cluster, self.endpoint, self.progress = self.cluster_class(self), FakeEndpoint(), FakeProgress()
        self.requeue: float | None = None
        self.cluster.store(
            names.RUNTIME_KIND, {"metadata": {"name": "hf"}, "spec": runtime or runtime_spec()}
        )
        metadata = {"name": "a", "namespace": "team", "generation": 1, "uid": "uid-a"}
        self.cluster.store(names.JOB_KIND, {"metadata": metadata, "spec": spec or job_spec()})
        self.start_operator()

    def now(self) -> datetime:
        return self.moment

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)

    def start_operator(self) -> None:
        """A new process: nothing is remembered, everything is listed."""
        self.due: set[Key] = set()
        self.operator_store = Store()
        self.operator_store.changed = self.due.add
        gatherer = Gatherer(self.operator_store, self.cluster, self.endpoint, self.progress)
        queue = KeyedQueue(self.operator_store.has_begun)
        self.reconciler = Reconciler(self.operator_store, queue, gatherer, self.cluster, self, NoMeter())
        self.told.clear()
        finish(resync(self.cluster, self.operator_store))

    def compare(self) -> None:
        """What the operator does every few minutes: lists against watches."""
        finish(resync(self.cluster, self.operator_store))
        self.due.add(KEY)

    def deliver(self) -> None:
        """All events that wait reach the operator."""
        while self.told:
            kind, what, body = self.told.pop(0)
            if kind == "Service":
                continue  # nobody watches it, and it has a pod's labels
            (self.operator_store.drop if what == "DELETED" else self.operator_store.put)(kind, body)

    def one_pass(self) -> float | None:
        """One pass over the job, due or not."""
        self.due.discard(KEY)
        self.requeue = finish(self.reconciler.reconcile(KEY))
        return self.requeue

    def settle(self) -> None:
        """Deliver and work until nothing is due."""
        for _ in range(50):
            self.deliver()
            if not self.due and self.requeue != 0:
                return
            self.one_pass()
        raise AssertionError("the operator does not come to rest")

    @property
    def status(self) -> FineTuneJobStatus:
        body = self.cluster.objects[names.JOB_KIND, "team", "a"]
        return FineTuneJobStatus.model_validate(body.get("status") or {})

    def conditions(self) -> dict[str, tuple[str, str]]:
        return {each.type.value: (each.status, each.reason) for each in self.status.conditions}

    def jobs(self) -> list[str]:
        return [body["metadata"]["name"] for body in self.cluster.of_kind("Job")]

    @property
    def digest(self) -> str:
        return self.status.plan.digest if self.status.plan else ""

    def make_pod(self, job: str, suffix: str = "x", **status: Any) -> str:
        """The Job controller's part."""
        owner = self.cluster.objects["Job", "team", job]
        name = f"{job}-{suffix}"
        reference = {"kind": "Job", "name": job, "uid": owner["metadata"]["uid"], "controller": True}
        metadata = {"name": name, "namespace": "team", "ownerReferences": [reference]}
        metadata["labels"] = owner["spec"]["template"]["metadata"]["labels"]
        self.cluster.store(
            "Pod", {"metadata": metadata, "spec": {}, "status": {"phase": "Pending", **status}}
        )
        self.set_job(job, active=1)
        return name

    def set_pod(self, name: str, **status: Any) -> None:
        body = self.cluster.objects["Pod", "team", name]
        self.cluster.store("Pod", {**body, "status": {**body["status"], **status}})

    def set_job(self, name: str, **status: Any) -> None:
        body = self.cluster.objects["Job", "team", name]
        self.cluster.store("Job", {**body, "status": {**(body.get("status") or {}), **status}})

    def run_pod(self, name: str) -> None:
        """The kubelet's part: placed and running."""
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": api_time(self.moment)}
        state = {"name": "trainer", "state": {"running": {"startedAt": api_time(self.moment)}}}
        self.set_pod(
            name, phase="Running", podIP="10.0.0.9", conditions=[scheduled], containerStatuses=[state]
        )

    def end_pod(
        self, name: str, *, exit_code: int = 0, message: str = "", reason: str = "Completed", **more: Any
    ) -> None:
        """The container has ended."""
        terminated = {"exitCode": exit_code, "reason": reason, "message": message}
        phase = "Failed" if exit_code else "Succeeded"
        self.set_pod(
            name,
            phase=phase,
            containerStatuses=[{"name": "trainer", "state": {"terminated": terminated}}],
            **more,
        )

    def fail_job(self, name: str, reason: str = "BackoffLimitExceeded") -> None:
        """The Job controller's word on failure."""
        self.set_job(
            name,
            active=0,
            failed=1,
            conditions=[{"type": "Failed", "status": "True", "reason": reason, "message": "Job has failed"}],
        )

    def delete(self, kind: str, name: str) -> None:
        """The API server's part of a foreground deletion: a Job stays until its pods are gone, a pod until it ends."""
        body = self.cluster.objects[kind, "team", name]
        if "deletionTimestamp" in body["metadata"]:
            return
        is_running = kind == "Pod" and body["status"]["phase"] == "Running"
        if kind == "Job" or is_running or (kind == "PersistentVolumeClaim" and self._is_mounted()):
            self.mark(kind, name, seconds=120 if kind == "Pod" else 0)
        else:
            self.cluster.remove(kind, name)
        self.collect_garbage()

    def mark(self, kind: str, name: str, seconds: float = 0) -> None:
        """Being deleted, and still there."""
        body = self.cluster.objects[kind, "team", name]
        metadata = {
            **body["metadata"],
            "deletionTimestamp": api_time(self.moment + timedelta(seconds=seconds)),
        }
        self.cluster.store(kind, {**body, "metadata": metadata})

    def collect_garbage(self) -> None:
        """The garbage collector's part: deletions go down to the pods and come up again; orphans go."""
        while (found := next(self.garbage(), None)) is not None:
            kind, name, is_done = found
            if is_done:
                self.cluster.remove(kind, name)
            else:
                self.delete(kind, name)

    def garbage(self) -> Iterator[tuple[str, str, bool]]:
        """What has to go: kind, name, and whether nothing keeps it any more."""
        uids = {body["metadata"]["uid"] for body in self.cluster.objects.values()}
        for kind in ("Pod", "Job", "ConfigMap", "PersistentVolumeClaim", "Service"):
            for body in self.cluster.of_kind(kind):
                metadata = body["metadata"]
                name, is_marked = metadata["name"], "deletionTimestamp" in metadata
                owners = {owner["uid"] for owner in metadata.get("ownerReferences", ())}
                if is_marked and kind == "Pod" and body["status"]["phase"] != "Running":
                    yield kind, name, True
                if is_marked and kind == "PersistentVolumeClaim" and not self._is_mounted():
                    yield kind, name, True
                if is_marked and kind == "Job":
                    pods = self.pods_of_job(body)
                    for pod in pods:
                        if "deletionTimestamp" not in pod["metadata"]:
                            yield "Pod", pod["metadata"]["name"], False
                    if not pods:
                        yield kind, name, True
                if owners and not owners & uids and not is_marked:
                    yield kind, name, False

    def _is_mounted(self) -> bool:
        """Whether Kubernetes keeps a claim that is deleted: while there is a pod of it that has been placed, even one that has ended."""
        return any(pod["status"]["phase"] != "Pending" for pod in self.cluster.of_kind("Pod"))

    def pods_of_job(self, job: Mapping[str, Any]) -> list[dict[str, Any]]:
        """By owner."""
        uid = job["metadata"]["uid"]
        return [
            body
            for body in self.cluster.of_kind("Pod")
            if uid in {owner["uid"] for owner in body["metadata"].get("ownerReferences", ())}
        ]

    def edit(self, **spec: Any) -> None:
        """A person changes the spec."""
        body = self.cluster.objects[names.JOB_KIND, "team", "a"]
        metadata = {**body["metadata"], "generation": body["metadata"].get("generation", 1) + 1}
        self.cluster.store(names.JOB_KIND, {**body, "metadata": metadata, "spec": {**body["spec"], **spec}})

    def carry_out(self, stage: Stage, attempt: int = 1) -> None:
        """The stage's pod is made, runs and succeeds."""
        pod = self.make_pod(f"a-{stage}-{attempt}")
        self.run_pod(pod)
        self.end_pod(pod, message=result_text(stage, self.digest))
        self.settle()


def merged(former: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7386."""
    result = dict(former)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            before = result.get(name)
            result[name] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            result[name] = value
    return result
