# SPDX-License-Identifier: Apache-2.0
"""A world in which everything goes wrong that may: answers get lost, nodes vanish, clocks jump, people change their minds.

It is as rough as Kubernetes is allowed to be. The garbage collector comes when it comes and takes what it finds in any
order; an orphaned Job goes before its pods do. Only pods that have been placed keep a claim that is deleted. A pod
that is deleted is there until the Job controller has counted it. Things happen between two requests of one pass.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from tuneyard_api import names
from tuneyard_api.pod_contract import FailureClass, Progress, Stage
from tuneyard_operator.domain.parsing import owner_uid
from tuneyard_operator.domain.state import is_terminal
from tuneyard_operator.ports import ClusterError
from tuneyard_operator.reconcile.patience import PATIENCE

from support.samples import failure_text, job_spec, result_text, runtime_without_endpoint
from support.world.cluster import Dead, FakeCluster
from support.world.deletion import (
    delete_finetunejob,
    end_unpublish,
    is_of_a_stage,
    take_finalizers_off,
)
from support.world.judge import Judge
from support.world.queue import is_queued, is_suspended, let_go, take_place
from support.world.world import KEY, World

OVER = {"Succeeded", "Failed"}


class RoughCluster(FakeCluster):
    """Does what it is asked, and sometimes loses the answer."""

    world: "RoughWorld"
    silent_after: int | None = None
    """The answer to the call with this number is lost."""
    meanwhile: tuple[int, Callable[[], object]] | None = None
    """The number of a call, and the event that happens just before it."""

    def _called(self, call: str) -> None:
        super()._called(call)
        if self.meanwhile is not None and len(self.calls) > self.meanwhile[0]:
            happens, self.meanwhile = self.meanwhile[1], None
            happens()

    def _answered(self) -> None:
        if self.silent_after is not None and len(self.calls) > self.silent_after:
            self.silent_after = None
            raise ClusterError("the connection broke before the answer")

    async def create(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        created = await super().create(body)
        if created is not None and body["kind"] == "Job":
            self.world.judge.of_creation(created)
        self._answered()
        return created

    async def set_finalizers(self, *where: Any, **what: Any) -> Mapping[str, Any] | None:
        body = await super().set_finalizers(*where, **what)
        self._answered()
        return body

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        there = self.objects.get((kind, namespace, name))
        if there is not None and there["metadata"]["uid"] == uid:
            self.world.judge.of_deletion(kind, there)
        await super().delete(kind, namespace, name, uid)
        self._answered()

    async def patch_status(self, *where: Any, **what: Any) -> Mapping[str, Any] | None:
        body = await super().patch_status(*where, **what)
        self.world.judge.of_status()
        self._answered()
        return body


class RoughWorld(World):
    """The world, and who judges what is done to it."""

    cluster_class = RoughCluster
    cluster: RoughCluster
    patience = PATIENCE

    def __init__(self, **spec: Any) -> None:
        self.lost: set[str] = set()
        """Pods on nodes that do not answer."""
        self.lives = 1
        self.judge = Judge(self)
        super().__init__(spec=job_spec(**spec), runtime=runtime_without_endpoint())
        self.judge.of_spec(self.cluster.objects[names.JOB_KIND, "team", "a"])

    @property
    def job(self) -> dict[str, Any] | None:
        return self.cluster.objects.get((names.JOB_KIND, "team", "a"))

    @property
    def is_deleting(self) -> bool:
        return self.job is not None and "deletionTimestamp" in self.job["metadata"]

    # What happens to the operator

    def try_pass(self) -> bool:
        """Runs one pass that may fail and is then due again; returns whether it succeeded."""
        try:
            self.one_pass()
        except ClusterError:
            self.due.add(KEY)
            return False
        return True

    def settle(self) -> None:
        """Deliver and work until nothing is due or a pass fails: then the queue lets the key wait."""
        for _ in range(50):
            self.deliver()
            if (not self.due and self.requeue != 0) or not self.try_pass():
                return
        raise AssertionError("the operator does not come to rest")

    def crash(self, calls: int) -> None:
        """SIGKILL before the call after this many, and a new process."""
        self.cluster.die_before = len(self.cluster.calls) + calls
        try:
            with contextlib.suppress(Dead):
                self.try_pass()
        finally:
            self.cluster.die_before = None
        self.start_operator()

    def silence(self, calls: int) -> None:
        """The answer to one of the next calls is lost."""
        self.cluster.silent_after = len(self.cluster.calls) + calls
        self.try_pass()
        self.cluster.silent_after = None

    def interrupt(self, calls: int, happens: Callable[[], object], work: Callable[[], object]) -> None:
        """Schedules an event in the middle of the operator's work, before one of its next calls."""
        self.cluster.meanwhile = (len(self.cluster.calls) + calls, happens)
        work()
        self.cluster.meanwhile = None

    # What controllers and kubelets do

    def collect_garbage(self) -> None:
        """Do nothing here: `sweep` collects garbage."""

    def sweep(self, choice: int = 0) -> bool:
        """Deletes any one object that has to go; returns whether there was one."""
        found = list(self.garbage())
        if not found:
            return False
        kind, name, is_done = found[choice % len(found)]
        body = self.cluster.objects[kind, "team", name]
        owner, uids = owner_uid(body), {each["metadata"]["uid"] for each in self.cluster.objects.values()}
        if is_done or (kind == "Job" and owner and owner not in uids):
            self.release(kind, name)
        else:
            self.delete(kind, name)
        return True

    def delete(self, kind: str, name: str) -> None:
        """A pod is only marked: the Job controller's finalizer keeps it."""
        body = self.cluster.objects[kind, "team", name]
        if kind != "Pod":
            super().delete(kind, name)
        elif "deletionTimestamp" not in body["metadata"]:
            self.mark(kind, name, seconds=120 if body["status"]["phase"] == "Running" else 0)

    def live_jobs(self, owner: str | None = None) -> dict[str, str]:
        """Uid and name of each Job, of one FineTuneJob or of any, that has, or may yet get, a pod that writes to a workspace."""
        live: dict[str, Mapping[str, Any]] = {}
        for body in filter(is_of_a_stage, self.cluster.of_kind("Job")):
            pods = self.pods_of_job(body)
            has_ended = bool((body.get("status") or {}).get("conditions")) or any(
                pod["status"]["phase"] in OVER for pod in pods
            )
            if "deletionTimestamp" not in body["metadata"] and not has_ended:
                live[body["metadata"]["uid"]] = body
        for pod in filter(is_of_a_stage, self.cluster.of_kind("Pod")):
            if pod["status"]["phase"] not in OVER:
                live[owner_uid(pod)] = self.makers[pod["metadata"]["name"]]
        return {
            uid: body["metadata"]["name"]
            for uid, body in live.items()
            if owner is None or owner_uid(body) == owner
        }

    def turn(self, outcome: str = "succeed", choice: int = 0) -> bool:
        """The Job controller or a kubelet does one thing, any of those to do; whether there was one."""
        moves = [*self._kubelet_moves(outcome), *self._controller_moves()]
        if moves:
            moves[choice % len(moves)]()
        return bool(moves)

    def _kubelet_moves(self, outcome: str) -> Iterator[Callable[[], object]]:
        claim = self.cluster.objects.get(("PersistentVolumeClaim", "team", names.workspace_name("a")))
        has_room = claim is not None and "deletionTimestamp" not in claim["metadata"]
        for body in self.cluster.of_kind("Pod"):
            name, phase = body["metadata"]["name"], body["status"]["phase"]
            if phase == "Running" and name not in self.lost:
                yield partial(self._end, name, outcome)
            elif (
                phase == "Pending"
                and (has_room or not is_of_a_stage(body))
                and "deletionTimestamp" not in body["metadata"]
            ):
                yield partial(self.run_pod, name)

    def _controller_moves(self) -> Iterator[Callable[[], object]]:
        for body in self.cluster.of_kind("Job"):
            name, status = body["metadata"]["name"], body.get("status") or {}
            if "deletionTimestamp" in body["metadata"] or status.get("conditions"):
                continue
            pods = self.pods_of_job(body)
            phases = [pod["status"]["phase"] for pod in pods if pod["metadata"]["uid"] not in self.taken]
            is_ending = any(pod["status"]["phase"] not in OVER for pod in pods)
            if (not phases and status.get("active")) or "Failed" in phases:
                yield partial(self.fail_job, name)
            elif not phases and is_suspended(body):
                yield partial(let_go, self, name)
            elif not phases and not is_ending:
                yield partial(self.make_pod, name)
            elif "Succeeded" in phases:
                conditions = [{"type": "Complete", "status": "True"}]
                yield partial(self.set_job, name, active=0, succeeded=1, conditions=conditions)

    def make_pod(self, job: str, suffix: str = "", **status: Any) -> str:
        """Make a pod with a unique name, as Kubernetes does."""
        maker = self.cluster.objects["Job", "team", job]
        unique = f"{maker['metadata']['uid'].removeprefix('uid-')}-{len(self.makers)}"
        return super().make_pod(job, suffix or unique, **status)

    def _end(self, pod: str, outcome: str) -> None:
        maker = self.makers[pod]
        if not is_of_a_stage(maker):
            end_unpublish(self, pod, succeeds=outcome == "succeed")
            return
        stage, digest = (
            Stage(maker["metadata"]["labels"][names.LABEL_STAGE]),
            maker["metadata"]["annotations"][names.ANNOTATION_PLAN],
        )
        is_deleted = "deletionTimestamp" in self.cluster.objects["Pod", "team", pod]["metadata"]
        if outcome == "succeed":
            self.judge.done.add((owner_uid(maker), stage))
            self.end_pod(pod, message=result_text(stage, digest))
        elif outcome == "oom":
            self.end_pod(pod, exit_code=137, reason="OOMKilled")
        elif is_deleted:
            self.end_pod(pod, exit_code=143, reason="Error")
        else:
            kind = FailureClass(outcome)
            self.end_pod(pod, exit_code=1, reason="Error", message=failure_text(stage, digest, kind, outcome))

    def running_pods(self) -> list[str]:
        return sorted(
            body["metadata"]["name"]
            for body in self.cluster.of_kind("Pod")
            if body["status"]["phase"] == "Running"
        )

    def take_place(self, choice: int) -> None:
        """Kueue gives the place of a Job that it has let go to another one."""
        running = [
            body["metadata"]["name"]
            for body in self.cluster.of_kind("Job")
            if is_queued(body)
            and not is_suspended(body)
            and "deletionTimestamp" not in body["metadata"]
            and not (body.get("status") or {}).get("conditions")
        ]
        if running:
            take_place(self, running[choice % len(running)])

    def lose_node(self, pod: str) -> None:
        """The kubelet of the pod falls silent; later the pod is deleted, and nobody confirms it."""
        self.lost.add(pod)
        self.delete("Pod", pod)

    def remove_node(self, pod: str) -> None:
        """Somebody declares that the lost node is off for good, and its pod is removed."""
        self.lost.discard(pod)
        if ("Pod", "team", pod) in self.cluster.objects:
            self.cluster.remove("Pod", pod)

    def stand_still(self) -> None:
        """The training pod says that it trains, and always the same step."""
        self.progress.answer = Progress(stage=Stage.TRAIN, phase="training", step=3, of=40, step_seconds=1.0)

    # What people do

    def edit(self, **spec: Any) -> None:
        if self.job is not None:
            super().edit(**spec)
            self.judge.of_spec(self.job)

    def delete_job(self, *, is_foreground: bool = False) -> None:
        """A person deletes the FineTuneJob; the garbage collector does the rest."""
        if self.job is not None:
            delete_finetunejob(self, is_foreground=is_foreground)

    def force_job(self) -> None:
        """A person takes the finalizers off a FineTuneJob that is being deleted."""
        if self.is_deleting:
            take_finalizers_off(self)

    def apply_job(self, **spec: Any) -> None:
        """And applies it again."""
        if self.job is None:
            self.lives += 1
            metadata = {"name": "a", "namespace": "team", "generation": 1, "uid": f"uid-a{self.lives}"}
            self.judge.of_spec(
                self.cluster.store(names.JOB_KIND, {"metadata": metadata, "spec": job_spec(**spec)})
            )

    def delete_child(self, *, is_background: bool, is_newest: bool = True) -> None:
        """A person deletes the newest Job, or the oldest."""
        for job in self.jobs()[-1:] if is_newest else self.jobs()[:1]:
            if is_background:
                self.cluster.remove("Job", job)
            else:
                self.delete("Job", job)

    # When all trouble is over

    def come_to_rest(self) -> None:
        """Without further faults, the job must end by itself, and only the FineTuneJob is left."""
        self.lost.clear()
        self.cluster.refuse.clear()
        self.progress.answer = None
        self.deliver()
        self._let_deletion_end()
        self.edit(suspend=False)
        self.compare()
        self._must_settle()
        if self.job is not None:
            self._reach_the_end()
        while self.move():
            self._must_settle()
        self._outlive_the_ttl()
        while self.move():
            self._must_settle()
        left = [
            place for place in self.cluster.objects if place[0] not in {names.JOB_KIND, names.RUNTIME_KIND}
        ]
        assert not left, f"left behind: {left}"

    def _let_deletion_end(self) -> None:
        """A FineTuneJob that is being deleted is gone soon if no further fault happens."""
        for _ in range(200):
            if not self.is_deleting:
                return
            self.compare()
            self.settle()
            if not self.move():
                self.advance(self.requeue or 2.0)
        raise AssertionError("the deletion does not end")

    def _reach_the_end(self) -> None:
        for _ in range(400):
            self._must_settle()
            if is_terminal(self.status.conditions):
                break
            if not self.move():
                self.advance(max(1.0, min(self.requeue or 60.0, 3600.0)))
                self.one_pass()
        else:
            raise AssertionError(f"no end: {self.conditions()} {self.status.message}")
        while self.move():
            pass
        self._must_settle()
        assert not self.live_jobs(), "something runs after the end"

    def _outlive_the_ttl(self) -> None:
        self.advance(timedelta(days=400).total_seconds())
        self.one_pass()
        self._must_settle()

    def move(self) -> bool:
        """The garbage collector has gone through, and something else has moved; whether anything has."""
        has_swept = False
        while self.sweep():
            has_swept = True
        return self.turn() or has_swept

    def _must_settle(self) -> None:
        """Settle, and assert that no pass fails."""
        super().settle()
