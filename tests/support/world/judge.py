# SPDX-License-Identifier: Apache-2.0
"""Checks at every write that nothing happens to a job that never may, and records the truth to compare with.

Each invariant has a name of its own in front of its assertion, so that a test of a planted bug can say which one
finds it.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tuneyard_api import names
from tuneyard_api.ledger import LedgerStatus
from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.status import FineTuneJobStatus, State
from tuneyard_api.survival import Ttl
from tuneyard_operator.domain.conditions import read_time
from tuneyard_operator.domain.parsing import owner_uid
from tuneyard_operator.domain.state import derive_state, is_terminal

from support.samples import FACTS
from support.world.deletion import UNPUBLISH, is_of_a_stage, live_unpublishers
from support.world.shape import JudgedWorld

STEP_OF = {Stage.PREPARE: "DataReady", Stage.TRAIN: "Evaluated", Stage.PUBLISH: "Published"}


class Judge:
    """The judge of one world: it reads its objects and records, by uid, what really happened to each FineTuneJob."""

    def __init__(self, world: JudgedWorld) -> None:
        self.world = world
        self.ends: dict[str, FineTuneJobStatus] = {}
        self.counted: dict[str, LedgerStatus] = {}
        self.made: set[tuple[str, str]] = set()
        """Jobs that were created: uid of the FineTuneJob, name."""
        self.done: set[tuple[str, Stage]] = set()
        """Stages of which a pod succeeded."""
        self.ttls: dict[str, list[Ttl]] = {}
        """Every spec.ttl there was."""
        self.policies: dict[str, set[str]] = {}
        """Every spec.deletionPolicy there was."""

    def of_spec(self, job: Mapping[str, Any]) -> None:
        """A spec was applied or edited."""
        uid, spec = job["metadata"]["uid"], job["spec"]
        self.ttls.setdefault(uid, []).append(Ttl.model_validate(spec.get("ttl", {})))
        self.policies.setdefault(uid, set()).add(spec.get("deletionPolicy", "Retain"))

    def of_creation(self, created: Mapping[str, Any]) -> None:
        """Judge the creation of a Job: nothing else may write to the workspace, and its stage was never done."""
        if not is_of_a_stage(created):
            self._of_unpublish(created)
            return
        uid, name, owner = created["metadata"]["uid"], created["metadata"]["name"], owner_uid(created)
        stage = Stage(created["metadata"]["labels"][names.LABEL_STAGE])
        self.made.add((owner, name))
        others = self.world.live_jobs().keys() - {uid}
        assert not others, f"overlap: {name} beside {sorted(self.world.live_jobs().values())}"
        if self.world.job is None or self.world.job["metadata"]["uid"] != owner:
            return  # it was for a FineTuneJob that is gone, and the garbage collector will find it
        assert owner not in self.ends, f"after the end: {name}"
        if stage is Stage.PUBLISH:
            unpublishing = live_unpublishers(self.world)
            assert not unpublishing, f"beside what is unpublished: {name}, and {unpublishing} runs"
            is_held = names.FINALIZER in self.world.job["metadata"].get("finalizers", ())
            assert is_held or "Retain" in self.policies[owner], f"unheld: {name}"
        done = {each.type.value for each in self.world.status.conditions if each.status == "True"}
        assert STEP_OF[stage] not in done, f"done twice: {name}, and status says that {stage} is done"
        for body in self.world.cluster.of_kind("Job"):
            same = (owner_uid(body), body["metadata"]["labels"].get(names.LABEL_STAGE)) == (owner, stage)
            if same and "deletionTimestamp" not in body["metadata"]:
                phases = [pod["status"]["phase"] for pod in self.world.pods_of_job(body)]
                assert "Succeeded" not in phases, f"done twice: {name} after {body['metadata']['name']}"

    def _of_unpublish(self, created: Mapping[str, Any]) -> None:
        """Nothing is unpublished while a pod of that FineTuneJob may still publish."""
        uid = created["metadata"]["annotations"][names.ANNOTATION_UID]
        self.made.add((uid, UNPUBLISH))
        publishers = [name for name in self.world.live_jobs(uid).values() if "publish" in name]
        assert not publishers, f"unpublished too early: {UNPUBLISH} beside {publishers}"

    def of_deletion(self, kind: str, body: Mapping[str, Any]) -> None:
        """Judge a deletion by the operator: what a job still needs may go only after its end and its ttl."""
        owner = owner_uid(body)
        if kind not in {"PersistentVolumeClaim", "ConfigMap"}:
            return
        assert owner in self.ends, f"removed too early: {kind} of a job that has not ended"
        end = self.ends[owner]
        succeeded = end.state is State.SUCCEEDED
        seconds = min(
            each.after_success_seconds if succeeded else each.after_failure_seconds
            for each in self.ttls[owner]
        )
        due = read_time(end.ended or "") + timedelta(seconds=seconds)
        assert self.world.moment >= due, f"removed too early: {kind}, which was to stay until {due}"

    def of_status(self) -> None:
        """Judge the status that was just written."""
        job = self.world.job
        if job is None:
            return
        status, uid = self.world.status, job["metadata"]["uid"]
        assert status.state is derive_state(status.conditions), "untrue: state is not what the conditions say"
        assert (status.observed_generation or 0) <= job["metadata"].get("generation", 1), "untrue: generation"
        for stage, step in STEP_OF.items():
            is_met = any(each.type.value == step and each.status == "True" for each in status.conditions)
            assert not is_met or (uid, stage) in self.done, f"untrue: {step}, and no {stage} of it succeeded"
        self._of_attempts(uid, status)
        self._of_ledger(job, status)
        self._of_end(uid, status)
        if status.state is State.SUSPENDED:
            known = {each.job for each in status.attempts}
            live = known & set(self.world.live_jobs(uid).values())
            assert not live, f"untrue: suspended, and {live} may write"

    def _of_attempts(self, uid: str, status: FineTuneJobStatus) -> None:
        running = [each for each in status.attempts if each.outcome == "Running"]
        assert running in ([], list(status.attempts[-1:])), f"two attempts run: {running}"
        for stage in Stage:
            charged = interrupted = 0
            attempts = [each for each in status.attempts if each.stage is stage]
            for number, each in enumerate(attempts, start=1):
                assert each.number == number, (
                    f"miscounted: attempt {each.number} of {stage} is the {number}th"
                )
                assert (uid, each.job) in self.made, f"untrue: {each.job} was never made"
                failed = each.failure_class if each.outcome == "Failed" else None
                charged += failed in {FailureClass.UPSTREAM, FailureClass.HUNG}
                interrupted += failed is FailureClass.INTERRUPTED
                counted = (each.charged, each.interrupted)
                assert counted == (charged, interrupted), f"miscounted: {each.job}: {counted}"

    def _of_ledger(self, job: Mapping[str, Any], status: FineTuneJobStatus) -> None:
        """Every second until now is counted, none twice, and none is taken back."""
        uid, ledger = job["metadata"]["uid"], status.ledger
        assert ledger is not None, "uncounted: no ledger"
        assert ledger.since == job["metadata"]["creationTimestamp"], "uncounted: the time before since"
        counted, until = sum(ledger.seconds.by_part().values()), read_time(ledger.until)
        assert min(ledger.seconds.by_part().values()) >= 0, f"counted twice: {ledger.seconds}"
        assert timedelta(seconds=counted) == until - read_time(ledger.since), f"counted twice: {ledger}"
        former = self.counted.get(uid, ledger)
        assert read_time(former.until) <= until, "counted twice: until went back"
        assert until <= max(self.world.moment, read_time(former.until)), "counted twice: the future"
        assert former.gpu_seconds <= ledger.gpu_seconds <= counted * (status.plan.gpus if status.plan else 0)
        self.counted[uid] = ledger

    def _of_end(self, uid: str, status: FineTuneJobStatus) -> None:
        if not is_terminal(status.conditions):
            assert uid not in self.ends, "an end was left"
            return
        status = status.model_copy(update={"cleaned": None})
        if uid not in self.ends:
            self.ends[uid] = status.model_copy(deep=True)
            if status.state is State.SUCCEEDED:
                assert status.result is not None, "untrue: succeeded without a result"
                assert status.result.adapter is not None, "untrue: succeeded without an adapter"
                assert status.result.adapter.digest == FACTS[Stage.PUBLISH]["digest"], (
                    "untrue: another adapter"
                )
            return
        kept = self.ends[uid].model_copy(update={"observed_generation": status.observed_generation})
        assert kept == status, "an end was rewritten"
