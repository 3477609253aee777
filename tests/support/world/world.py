# SPDX-License-Identifier: Apache-2.0
"""A cluster in memory: the API server's objects, a kubelet that does as told, and a clock that is set.

Events reach the operator's store only when `deliver` is called, so that tests can lose and shuffle them.
"""

import copy
from collections.abc import Coroutine, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from tuneyard_api import names
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import FineTuneJobStatus
from tuneyard_operator.adapters.nemo import Answer, NemoV1
from tuneyard_operator.domain.conditions import api_time
from tuneyard_operator.ports import Watched
from tuneyard_operator.reconcile.gather import Gatherer
from tuneyard_operator.reconcile.patience import Patience
from tuneyard_operator.reconcile.queue import Key, KeyedQueue
from tuneyard_operator.reconcile.reconciler import Reconciler
from tuneyard_operator.reconcile.resync import resync
from tuneyard_operator.reconcile.store import Store
from tuneyard_operator.reconcile.trainings import Trainings

from support.nemo.double import TOKEN, NemoDouble, call_double
from support.samples import NOW, job_spec, result_text, runtime_spec
from support.world.cluster import FakeCluster
from support.world.deletion import (
    foreground_garbage,
    has_outlived,
    is_of_a_stage,
    note_publisher,
    release_finetunejob,
)
from support.world.pods import FakeMeter, FakeProgress, FakeServers

KEY = Key("team", "a")


def finish(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine, run without an event loop (which costs more than a pass), as nothing here waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a fake has waited for something")


class World:
    """One FineTuneJob `team/a`, a runtime `hf`, and an operator that can be killed."""

    cluster_class = FakeCluster
    patience = 0.0
    """Seconds for which the operator lets a report wait; most tests look at each one at once."""

    def __init__(
        self, *, spec: Mapping[str, Any] | None = None, runtime: Mapping[str, Any] | None = None
    ) -> None:
        self.moment = NOW
        self.told: list[tuple[str, str, dict[str, Any]]] = []
        self.cluster, self.servers, self.progress = self.cluster_class(self), FakeServers(), FakeProgress()
        self.meter = FakeMeter()
        self.nemo = NemoDouble(now=self.now)
        """Services that train, for a runtime that names them."""
        self.requeue: float | None = None
        self.makers: dict[str, Mapping[str, Any]] = {}
        """The Job of each pod."""
        self.taken: set[str] = set()
        """Uids of the pods that were deleted because Kueue took the place of their Job away."""
        self.registry: set[str] = set()
        """Uids of the FineTuneJobs that may have published and have not unpublished."""
        self.let_go: set[str] = set()
        """Uids of the FineTuneJobs that have unpublished and are gone."""
        self.cluster.store(
            names.RUNTIME_KIND, {"metadata": {"name": "hf"}, "spec": runtime or runtime_spec()}
        )
        metadata = {"name": "a", "namespace": "team", "generation": 1, "uid": "uid-a"}
        self.cluster.store(names.JOB_KIND, {"metadata": metadata, "spec": spec or job_spec()})
        self.start_operator()

    def now(self) -> datetime:
        return self.moment

    async def services(self, method: str, url: str, body: Any) -> Answer:
        """The operator's calls to services that train, without sockets."""
        return call_double(self.nemo, method, url, body)

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)

    def start_operator(self) -> None:
        """A new process: nothing is remembered, everything is listed."""
        self.due: set[Key] = set()
        self.operator_store = Store()
        self.operator_store.changed = self.due.add
        services = NemoV1(self.services, lambda: TOKEN)
        gatherer = Gatherer(
            self.operator_store, self.cluster, self.servers, self.progress, Trainings(services)
        )
        queue = KeyedQueue(self.operator_store.has_begun)
        self.reconciler = Reconciler(
            self.operator_store, queue, gatherer, self.cluster, services, self, self.meter,
            patience=Patience(self.patience),
        )  # fmt: skip
        self.told.clear()
        finish(resync(self.cluster, self.operator_store))

    def compare(self) -> None:
        """Compares the watches with lists, as the operator does every few minutes."""
        finish(resync(self.cluster, self.operator_store))
        self.due.add(KEY)

    def deliver(self) -> None:
        """All events that wait reach the operator."""
        while self.told:
            kind, what, body = self.told.pop(0)
            if kind == "Service":
                continue  # nobody watches it, and it has a pod's labels
            reach = self.operator_store.drop if what == "DELETED" else self.operator_store.put
            reach(cast("Watched", kind), body)

    def one_pass(self) -> float | None:
        """Runs one pass over the job, due or not."""
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
        metadata |= copy.deepcopy(owner["spec"]["template"]["metadata"])
        self.makers[name] = owner
        self.cluster.store(
            "Pod",
            {
                "metadata": metadata,
                "spec": {"volumes": copy.deepcopy(owner["spec"]["template"]["spec"].get("volumes", []))},
                "status": {"phase": "Pending", **status},
            },
        )
        self.set_job(job, active=1)
        return name

    def set_pod(self, name: str, **status: Any) -> None:
        body = self.cluster.objects["Pod", "team", name]
        self.cluster.store("Pod", {**body, "status": {**body["status"], **status}})

    def set_job(self, name: str, **status: Any) -> None:
        """The Job controller updates the status of a Job."""
        for condition in status.get("conditions", ()):
            condition["lastTransitionTime"] = api_time(self.moment)
        body = self.cluster.objects["Job", "team", name]
        self.cluster.store("Job", {**body, "status": {**(body.get("status") or {}), **status}})

    def run_pod(self, name: str) -> None:
        """The kubelet's part: placed and running."""
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": api_time(self.moment)}
        note_publisher(self, name)
        state = {"name": "trainer", "state": {"running": {"startedAt": api_time(self.moment)}}}
        self.set_pod(
            name, phase="Running", podIP="10.0.0.9", conditions=[scheduled], containerStatuses=[state]
        )

    def end_pod(
        self, name: str, *, exit_code: int = 0, message: str = "", reason: str = "Completed", **more: Any
    ) -> None:
        """The container has ended."""
        terminated = {"exitCode": exit_code, "reason": reason, "message": message}
        terminated |= {"startedAt": self._started_at(name), "finishedAt": api_time(self.moment)}
        phase = "Failed" if exit_code else "Succeeded"
        self.set_pod(
            name,
            phase=phase,
            containerStatuses=[{"name": "trainer", "state": {"terminated": terminated}}],
            **more,
        )

    def _started_at(self, pod: str) -> str:
        """When the container of a pod started; one that never ran started when it ended."""
        for container in self.cluster.objects["Pod", "team", pod]["status"].get("containerStatuses", ()):
            if "running" in container["state"]:
                return str(container["state"]["running"]["startedAt"])
        return api_time(self.moment)

    def fail_job(self, name: str, reason: str = "BackoffLimitExceeded") -> None:
        """The Job controller reports a failure."""
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
                self.release(kind, name)
            else:
                self.delete(kind, name)

    def release(self, kind: str, name: str) -> None:
        """Release an object that nothing holds any more, as the garbage collector does."""
        if kind == names.JOB_KIND:
            release_finetunejob(self)
        else:
            self.cluster.remove(kind, name)

    def garbage(self) -> Iterator[tuple[str, str, bool]]:
        """The garbage: kind, name, and whether nothing holds it any more."""
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
                if not is_marked and (has_outlived(self, body) or (owners and not owners & uids)):
                    yield kind, name, False
        yield from foreground_garbage(self)

    def _is_mounted(self) -> bool:
        """Whether Kubernetes keeps a claim that is deleted: while there is a pod of it that has been placed, even one that has ended."""
        pods = filter(is_of_a_stage, self.cluster.of_kind("Pod"))
        return any(pod["status"]["phase"] != "Pending" for pod in pods)

    def pods_of_job(self, job: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The pods of a Job, by owner."""
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
        self.carry_out_pod(pod, stage)

    def carry_out_pod(self, pod: str, stage: Stage) -> None:
        """A pod that runs succeeds."""
        self.end_pod(pod, message=result_text(stage, self.digest))
        self.settle()
