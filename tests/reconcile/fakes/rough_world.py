# SPDX-License-Identifier: Apache-2.0
"""A world in which everything goes wrong that may: answers get lost, nodes vanish, clocks jump, people change their minds.

It also keeps the truth: which pods could write at once, what has really been done, what was promised to be the end.
"""

import contextlib
import copy
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from fake_deletion import delete_finetunejob, end_unpublish, judge_unpublish, let_deletion_end
from fake_world import Dead, FakeCluster, World
from operator_samples import FACTS, failure_text, job_spec, result_text, runtime_without_endpoint
from tuneyard_api import names
from tuneyard_api.pod_contract import FailureClass, Progress, Stage
from tuneyard_api.status import FineTuneJobStatus
from tuneyard_operator.domain.state import derive_state, is_terminal
from tuneyard_operator.ports import ClusterError

OVER = {"Succeeded", "Failed"}
STEP_OF = {Stage.PREPARE: "DataReady", Stage.TRAIN: "Evaluated", Stage.PUBLISH: "Published"}


class RoughCluster(FakeCluster):
    """Does what it is asked and does not always say so."""

    world: "RoughWorld"
    silent_after: int | None = None
    """The answer to the call with this number is lost."""

    def _answered(self) -> None:
        if self.silent_after is not None and len(self.calls) > self.silent_after:
            self.silent_after = None
            raise ClusterError("the connection broke before the answer")

    async def create(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        created = await super().create(body)
        if created is not None and body["kind"] == "Job":
            self.world.judge_creation(created)
        self._answered()
        return created

    async def set_finalizers(self, *where: Any, **what: Any) -> Mapping[str, Any] | None:
        body = await super().set_finalizers(*where, **what)
        self._answered()
        return body

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        await super().delete(kind, namespace, name, uid)
        self._answered()

    async def patch_status(self, *where: Any, **what: Any) -> Mapping[str, Any] | None:
        body = await super().patch_status(*where, **what)
        self.world.judge_status()
        self._answered()
        return body


class RoughWorld(World):
    """The world, its truth, and the judge."""

    cluster_class = RoughCluster
    cluster: RoughCluster

    def __init__(self, **spec: Any) -> None:
        self.lost: set[str] = set()
        self.lives = 1
        self.end: FineTuneJobStatus | None = None
        super().__init__(spec=job_spec(**spec), runtime=runtime_without_endpoint())

    @property
    def job(self) -> dict[str, Any] | None:
        return self.cluster.objects.get((names.JOB_KIND, "team", "a"))

    # What happens to the operator

    def try_pass(self) -> None:
        """One pass that may fail as passes may."""
        with contextlib.suppress(ClusterError):
            self.one_pass()

    def settle(self) -> None:
        """As ever; a view that is too old to write is put right by the lists that are compared every few minutes."""
        try:
            super().settle()
        except ClusterError:
            self.compare()
            super().settle()

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

    # What happens to pods

    def live_jobs(self) -> set[str]:
        """Uids of Jobs that have, or may yet get, a pod that writes."""
        live = set()
        for body in self.cluster.of_kind("Job"):
            pods = self.pods_of_job(body)
            has_ended = bool((body.get("status") or {}).get("conditions")) or any(
                pod["status"]["phase"] in OVER for pod in pods
            )
            if "deletionTimestamp" not in body["metadata"] and not has_ended:
                live.add(body["metadata"]["uid"])
        for pod in self.cluster.of_kind("Pod"):
            if pod["status"]["phase"] not in OVER:
                live.add(pod["metadata"]["ownerReferences"][0]["uid"])
        return live

    def turn(self, outcome: str = "succeed") -> bool:
        """The Job controller and the kubelets do one thing; whether there was one to do."""
        self.collect_garbage()
        for body in self.cluster.of_kind("Pod"):
            name = body["metadata"]["name"]
            if name not in self.lost and "deletionTimestamp" in body["metadata"]:
                self.end_pod(name, exit_code=143, reason="Error")
                self.collect_garbage()
                return True
        for body in self.cluster.of_kind("Job"):
            if "deletionTimestamp" not in body["metadata"] and self._turn_job(body, outcome):
                return True
        return False

    def _turn_job(self, body: Mapping[str, Any], outcome: str) -> bool:
        name, status = body["metadata"]["name"], body.get("status") or {}
        if status.get("conditions"):
            return False
        pods = self.pods_of_job(body)
        if not pods and status.get("active"):
            self.fail_job(name)
        elif not pods:
            self.make_pod(name)
        elif pods[0]["status"]["phase"] == "Pending":
            self.run_pod(f"{name}-x")
        elif pods[0]["status"]["phase"] == "Running":
            if f"{name}-x" in self.lost:
                return False
            self._end(body, outcome)
        elif pods[0]["status"]["phase"] == "Failed":
            self.fail_job(name)
        else:
            conditions = [{"type": "Complete", "status": "True"}]
            self.set_job(name, active=0, succeeded=1, conditions=conditions)
        return True

    def _end(self, body: Mapping[str, Any], outcome: str) -> None:
        if names.LABEL_STAGE not in body["metadata"]["labels"]:
            end_unpublish(self, f"{body['metadata']['name']}-x", succeeds=outcome == "succeed")
            return
        pod, stage = f"{body['metadata']['name']}-x", Stage(body["metadata"]["labels"][names.LABEL_STAGE])
        digest = body["metadata"]["annotations"][names.ANNOTATION_PLAN]
        if outcome == "succeed":
            self.end_pod(pod, message=result_text(stage, digest))
        elif outcome == "oom":
            self.end_pod(pod, exit_code=137, reason="OOMKilled")
        else:
            kind = FailureClass(outcome)
            self.end_pod(pod, exit_code=1, reason="Error", message=failure_text(stage, digest, kind, outcome))

    def running_pods(self) -> list[str]:
        return sorted(
            body["metadata"]["name"]
            for body in self.cluster.of_kind("Pod")
            if body["status"]["phase"] == "Running"
        )

    def lose_node(self, pod: str) -> None:
        """Its kubelet falls silent; after a while the pod is deleted, and nobody confirms it."""
        self.lost.add(pod)
        self.delete("Pod", pod)

    def delete_job(self) -> None:
        """A person deletes the FineTuneJob; the garbage collector does the rest."""
        delete_finetunejob(self)
        self.end = None

    def apply_job(self, **spec: Any) -> None:
        """And applies it again."""
        self.lives += 1
        metadata = {"name": "a", "namespace": "team", "generation": 1, "uid": f"uid-a{self.lives}"}
        self.cluster.store(names.JOB_KIND, {"metadata": metadata, "spec": job_spec(**spec)})

    # The judge

    def judge_creation(self, created: Mapping[str, Any]) -> None:
        """Of a Job: when nothing else of the job may write, and its stage has never been done."""
        if names.ANNOTATION_UID in created["metadata"]["annotations"]:
            judge_unpublish(self, created)
            return
        uid, labels = created["metadata"]["uid"], created["metadata"]["labels"]
        owner = created["metadata"]["ownerReferences"][0]["uid"]
        if self.job is None or self.job["metadata"]["uid"] != owner:
            self.collect_garbage()  # it was for a FineTuneJob that is gone, and goes at once
            return
        others = self.live_jobs() - {uid}
        assert not others, f"{created['metadata']['name']} beside {others}"
        assert self.end is None, f"{created['metadata']['name']} after the end"
        stage = Stage(labels[names.LABEL_STAGE])
        done = {each.type.value for each in self.status.conditions if each.status == "True"}
        assert STEP_OF[stage] not in done, f"{stage} is done"
        for body in self.cluster.of_kind("Job"):
            same = body["metadata"]["labels"].get(names.LABEL_STAGE) == stage
            is_kept = "deletionTimestamp" not in body["metadata"]
            if same and is_kept and body["metadata"]["uid"] != uid:
                phases = [pod["status"]["phase"] for pod in self.pods_of_job(body)]
                assert "Succeeded" not in phases, f"{stage} has succeeded in {body['metadata']['name']}"

    def judge_status(self) -> None:
        """Of what was just written."""
        if self.job is None:
            return
        status, spec = self.status, self.job["spec"]
        assert status.state is derive_state(status.conditions)
        assert (status.observed_generation or 0) <= self.job["metadata"].get("generation", 1)
        running = [each for each in status.attempts if each.outcome == "Running"]
        assert running in ([], [status.attempts[-1]] if status.attempts else []), running
        for stage in Stage:
            numbers = [each.number for each in status.attempts if each.stage is stage]
            assert numbers == list(range(1, len(numbers) + 1)), numbers
        assert all(each.charged <= 20 and each.interrupted <= 1001 for each in status.attempts)
        self._judge_end(copy.deepcopy(status))
        if status.state.value == "Suspended":
            known = {each.job for each in status.attempts}
            live = {pod for pod in self.running_pods() if pod.removesuffix("-x") in known}
            assert not live, f"suspended, and {live} run"
        assert spec is not None

    def _judge_end(self, status: FineTuneJobStatus) -> None:
        if not is_terminal(status.conditions):
            assert self.end is None, "an end was left"
            return
        status = status.model_copy(update={"cleaned": None})
        if self.end is None:
            self.end = status
            if status.state.value == "Succeeded":
                assert {each.type.value for each in status.conditions} >= set(STEP_OF.values())
                assert status.result is not None
                assert status.result.adapter is not None
                assert status.result.adapter.digest == FACTS[Stage.PUBLISH]["digest"]
        else:
            kept = self.end.model_copy(update={"observed_generation": status.observed_generation})
            assert kept == status, "an end was rewritten"

    # When all trouble is over

    def come_to_rest(self) -> None:
        """No more faults: the job must end by itself, and leave nothing behind but itself."""
        self.lost.clear()
        self.cluster.refuse.clear()
        self.progress.answer = None
        self.deliver()
        let_deletion_end(self)
        if self.job is None:
            self.compare()
            self.settle()
            while self.turn():
                pass
            assert not [body for kind in ("Job", "Pod") for body in self.cluster.of_kind(kind)], "orphans"
            return
        if self.job["spec"].get("suspend"):
            self.edit(suspend=False)
        self.compare()
        for _ in range(400):
            self.settle()
            if is_terminal(self.status.conditions):
                break
            if not self.turn():
                self.advance(max(1.0, min(self.requeue or 60.0, 3600.0)))
                self.one_pass()
        else:
            raise AssertionError(f"no end: {self.conditions()} {self.status.message}")
        while self.turn():
            pass
        self.settle()
        assert not self.live_jobs(), "something runs after the end"
        self.advance(timedelta(days=400).total_seconds())
        self.one_pass()
        self.settle()
        while self.turn():
            pass
        self.settle()
        left = [
            kind for kind, _, _ in self.cluster.objects if kind not in {names.JOB_KIND, names.RUNTIME_KIND}
        ]
        assert not left, f"left behind: {left}"

    def stand_still(self) -> None:
        """The training pod says that it trains, and always the same step."""
        self.progress.answer = Progress(stage=Stage.TRAIN, phase="training", step=3, of=40, step_seconds=1.0)
