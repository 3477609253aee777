# SPDX-License-Identifier: Apache-2.0
"""The walk through faults can fail: each of these bugs of the operator is found, and by the invariant that it breaks.

Each is looked for in its corner, with the rules that lead there, so that few lives are enough; always the same ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest
from support.world.rough import RoughCluster, RoughWorld
from support.world.survival_machine import only, walk
from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.status import Attempt, ConditionType, FineTuneJobStatus
from tuneyard_operator.domain import cleanup, decide, deletion, report, stages
from tuneyard_operator.domain.conditions import is_true
from tuneyard_operator.domain.decision import Decision, Delete
from tuneyard_operator.domain.observed import Observed, SeenJob
from tuneyard_operator.domain.steps import plan, prepare, publish, train
from tuneyard_operator.domain.verdict import StageFailure
from tuneyard_operator.reconcile import apply, gather, reconciler
from tuneyard_operator.reconcile.gather import Gatherer
from tuneyard_operator.reconcile.queue import Key

LIVES = 150
Patch = pytest.MonkeyPatch
WORK = {"everything_moves_on", "operator_works_until_nothing_is_due", "a_controller_or_kubelet_moves"}
AGAIN = {
    *WORK,
    "garbage_is_collected",
    "operator_passes",
    "somebody_deletes_the_job",
    "somebody_applies_it_again",
}


GOING = {"everything_moves_on", "somebody_deletes_the_job", "time_passes_and_is_used"}


def forget_former_pods(patch: Patch) -> None:
    """Starts the next attempt without looking whether the last one still writes."""
    real = stages.again

    def again(work: stages.Work, by: stages.Carrier[Any], stage: Stage, attempt: Attempt) -> Any:
        kept = tuple(pod for pod in work.seen.pods if (pod.stage, pod.attempt) != (stage, attempt.number))
        work.seen = replace(work.seen, pods=kept)
        return real(work, by, stage, attempt)

    patch.setattr(stages, "again", again)
    patch.setattr(stages, "_why_pods_outlive", lambda *_: None)  # it sees them too while their Job is gone


def trust_the_watch(patch: Patch) -> None:
    """Does not ask afresh what is left of the attempt before."""

    async def as_stored(*where: Any) -> Any:
        return where[-1]

    patch.setattr(gather, "_may_start_again", lambda _: False)
    patch.setattr(Gatherer, "_with_pods_without_job", as_stored)


def forget_what_is_ahead(patch: Patch) -> None:
    """Runs a stage again beside the next one, which began when it had succeeded."""
    patch.setattr(stages, "_end_what_is_ahead", lambda *_: None)


def ignore_the_attempt(patch: Patch) -> None:
    """Takes any attempt's Job for the one that is asked for."""

    def job_of(self: Observed, stage: Stage, _: int) -> SeenJob | None:
        return next((job for job in self.jobs if (job.stage, job.owner_uid) == (stage, self.uid)), None)

    patch.setattr(Observed, "job_of", job_of)


def ignore_the_owner(patch: Patch) -> None:
    """Believes in Jobs of an older FineTuneJob of the same name; three layers check the owner, and all are off."""

    def job_of(self: Observed, stage: Stage, attempt: int) -> SeenJob | None:
        return next((job for job in self.jobs if (job.stage, job.attempt) == (stage, attempt)), None)

    patch.setattr(Observed, "job_of", job_of)
    patch.setattr(apply, "_conflict", lambda *_: None)
    patch.setattr(plan, "why_former_life", lambda _: None)


def ignore_a_former_life(patch: Patch) -> None:
    """Starts beside what an older FineTuneJob of the same name has left under other names."""
    patch.setattr(plan, "why_former_life", lambda _: None)


def leave_an_end(patch: Patch) -> None:
    """Looks at a job that has ended as at any other."""
    patch.setattr(decide, "is_terminal", lambda _: False)


def write_to_any_version(patch: Patch) -> None:
    """Writes a status whatever has been written since it was decided."""
    real = RoughCluster.patch_status

    async def patch_status(
        self: RoughCluster, namespace: str, name: str, uid: str, status: Mapping[str, Any], *, version: int
    ) -> Any:
        there = self.world.job
        current = there["metadata"]["resourceVersion"] if there is not None else version
        return await real(self, namespace, name, uid, status, version=current)

    patch.setattr(RoughCluster, "patch_status", patch_status)


def count_a_retry_twice(patch: Patch) -> None:
    """Charges a failure two attempts."""
    real = report.Report.end

    def end(self: report.Report, attempt: Attempt, ending: Any) -> Attempt:
        ended = real(self, attempt, ending)
        return self.note(ended, charged=ended.charged + ended.charged - attempt.charged)

    patch.setattr(report.Report, "end", end)


def clean_up_early(patch: Patch) -> None:
    """Counts the TTL from the evaluation: the workspace goes before the adapter is published."""
    real_gather, real_decide = Gatherer.gather, decide.decide

    async def gather_leftovers(self: Gatherer, key: Key, now: datetime) -> Observed | None:
        seen = await real_gather(self, key, now)
        return seen and replace(seen, leftovers=await self._leftovers(seen))

    def decide_early(seen: Observed, now: datetime) -> Decision:
        decision = real_decide(seen, now)
        is_evaluated = is_true(seen.status.conditions, ConditionType.EVALUATED)
        due = [Delete(each.kind, each.name, each.uid) for each in seen.leftovers if is_evaluated]
        return replace(decision, actions=(*decision.actions, *due))

    patch.setattr(Gatherer, "gather", gather_leftovers)
    patch.setattr(reconciler, "decide", decide_early)


def forget_the_ttl(patch: Patch) -> None:
    """Removes the children of a job as soon as it has ended."""
    patch.setattr(cleanup, "cleaning_due", lambda seen: _ended(seen.status))
    patch.setattr(gather, "cleaning_due", lambda seen: _ended(seen.status))


def _ended(status: FineTuneJobStatus) -> datetime | None:
    return datetime.fromisoformat(status.ended) if status.ended and status.cleaned is None else None


def suspend_and_forget_the_pod(patch: Patch) -> None:
    """Calls a job suspended whose pod runs."""
    real = stages.PODS

    def follow(work: stages.Work, attempt: Attempt) -> Any:
        return work.hold if work.hold is not None else real.follow(work, attempt)

    for step in (prepare, train, publish):
        patch.setattr(step, "PODS", replace(real, follow=follow))


def start_beside_what_is_queued(patch: Patch) -> None:
    """Takes a Job that its queue holds back for one that has lost its pods."""

    def wait(work: stages.Work, attempt: Attempt, *_: Any) -> Any:
        lost = StageFailure(FailureClass.INTERRUPTED, "lost")
        return stages.again(work, stages.PODS, attempt.stage, work.report.end(attempt, lost))

    patch.setattr(stages, "_wait_in_queue", wait)


def publish_without_a_hold(patch: Patch) -> None:
    """Sets no finalizer before it publishes what is to go with the job."""
    real = decide._carry_on

    def carry_on(seen: Observed, now: datetime) -> Decision:
        return real(replace(seen, live=seen.live.model_copy(update={"deletion_policy": "Retain"})), now)

    patch.setattr(decide, "finalizers_to_set", lambda *_: None)
    patch.setattr(decide, "_carry_on", carry_on)


def let_go_early(patch: Patch) -> None:
    """Takes the finalizer off as soon as the Job that unpublishes is there."""
    real = deletion._next

    def next_or_gone(seen: Observed, *rest: Any) -> Decision:
        is_there = seen.deletion is not None and seen.deletion.unpublish is not None
        return deletion._let_go(seen, None) if is_there else real(seen, *rest)

    patch.setattr(deletion, "_next", next_or_gone)


def forget_who_publishes(patch: Patch) -> None:
    """Takes back at once, whatever runs."""
    real = deletion.decide_deletion

    def decide_deletion(seen: Observed, now: datetime) -> Decision:
        assert seen.deletion is not None
        return real(replace(seen, deletion=replace(seen.deletion, running=(), writers=())), now)

    patch.setattr(decide, "decide_deletion", decide_deletion)


def ignore_what_unpublishes(patch: Patch) -> None:
    """Starts while what an older FineTuneJob of the name published is being unpublished."""
    patch.setattr(gather, "may_unpublish", lambda _: False)


def applied_again_before_all_garbage_is_collected(world: RoughWorld) -> None:
    """The FineTuneJob is another one by now, and of what the old one had its training's Job is left."""
    while "a-train-1" not in world.jobs():
        world.settle()
        world.turn()
    world.delete_job()
    world.apply_job()
    for kind, _, name in list(world.cluster.objects):
        if kind in {"ConfigMap", "PersistentVolumeClaim", "Pod"} or name == "a-prepare-1":
            world.cluster.remove(kind, name)


def applied_again_beside_a_job_that_is_done(world: RoughWorld) -> None:
    """The first stage of the old one has succeeded."""
    while ("uid-a", Stage.PREPARE) not in world.judge.done:
        world.settle()
        world.turn()
    world.delete_job()
    world.apply_job()


def with_a_next_stage_that_was_not_written(world: RoughWorld) -> None:
    """The training has begun, the operator was killed before it could say so, and the preparation is all deleted."""
    while ("uid-a", Stage.PREPARE) not in world.judge.done:
        world.settle()
        world.turn()
    world.deliver()
    world.crash(1)
    world.delete_child(is_background=True, is_newest=False)
    while world.sweep():
        pass
    world.start_operator()


def with_an_end_that_was_not_answered(world: RoughWorld) -> None:
    """The end is written, and the operator does not know."""
    while ("uid-a", Stage.PUBLISH) not in world.judge.done:
        world.settle()
        world.turn()
    world.deliver()
    world.silence(0)


def with_a_running_pod(world: RoughWorld) -> None:
    """The first stage is at work."""
    world.settle()
    for _ in range(2):
        world.turn()
    world.settle()


def in_a_second_attempt(world: RoughWorld) -> None:
    """The training was interrupted once."""
    while "a-train-2" not in world.jobs():
        world.settle()
        world.turn("Interrupted" if "a-train-1" in world.jobs() else "succeed")


def with_a_pod_that_nobody_told_of(world: RoughWorld) -> None:
    """The watch of Jobs is up to date, that of pods is not."""
    world.settle()
    for _ in range(2):
        world.turn()
    world.told = [event for event in world.told if event[0] != "Pod"]


def in_a_default_queue(world: RoughWorld) -> None:
    """Every Job waits in its queue before it has pods."""
    world.cluster.has_default_queue = True


def about_to_publish(world: RoughWorld) -> None:
    """What is published next is to go with the job."""
    world.edit(deletionPolicy="Delete")
    world.judge.policies["uid-a"] = {"Delete"}  # nobody has looked at it before
    while ("uid-a", Stage.TRAIN) not in world.judge.done:
        world.settle()
        world.turn()


def with_a_pod_that_publishes(world: RoughWorld) -> None:
    """And that what it publishes is to go with the job."""
    about_to_publish(world)
    while "uid-a" not in world.registry:
        world.settle()
        world.turn()


def applied_again_beside_what_unpublishes(world: RoughWorld) -> None:
    """The finalizer was taken off by hand, and the node of the pod that unpublishes does not answer."""
    with_a_pod_that_publishes(world)
    world.turn()
    world.delete_job()
    while not world.running_pods():
        world.settle()
        world.turn()
        world.advance(2)
        world.try_pass()
    world.lost.update(world.running_pods())
    world.force_job()
    while world.sweep():
        pass
    world.apply_job(deletionPolicy="Delete")


@dataclass(frozen=True)
class Plant:
    """A bug, the rules that lead to it, the words of who finds it, and where the rules begin."""

    bug: Callable[[Patch], None]
    rules: set[str]
    found: str
    corner: Callable[[RoughWorld], None] | None = None


PLANTS = [
    Plant(
        forget_former_pods,
        {"operator_works_until_nothing_is_due", "somebody_deletes_a_stage_s_job", "time_passes_and_is_used"},
        "overlap: ",
        with_a_running_pod,
    ),
    Plant(
        trust_the_watch,
        {"operator_passes", "events_arrive", "somebody_deletes_a_stage_s_job", "time_passes_or_jumps"},
        "overlap: ",
        with_a_pod_that_nobody_told_of,
    ),
    Plant(
        forget_what_is_ahead,
        {*WORK, "garbage_is_collected", "time_passes_and_is_used"},
        "overlap: a-prepare-2 beside",
        with_a_next_stage_that_was_not_written,
    ),
    Plant(ignore_the_attempt, WORK, "done twice: ", in_a_second_attempt),
    Plant(ignore_the_owner, AGAIN, "untrue: ", applied_again_beside_a_job_that_is_done),
    Plant(
        ignore_a_former_life,
        {"garbage_is_collected", "operator_passes", "events_arrive"},
        "overlap: ",
        applied_again_before_all_garbage_is_collected,
    ),
    Plant(leave_an_end, WORK, "an end was rewritten"),
    Plant(
        write_to_any_version,
        {"operator_passes", "time_passes_or_jumps"},
        "an end was rewritten",
        with_an_end_that_was_not_answered,
    ),
    Plant(count_a_retry_twice, WORK, "miscounted: "),
    Plant(clean_up_early, WORK, "removed too early: .* has not ended"),
    Plant(forget_the_ttl, WORK, "removed too early: .* which was to stay until"),
    Plant(publish_without_a_hold, WORK, "unheld: ", about_to_publish),
    Plant(let_go_early, GOING, "left behind without a word", with_a_pod_that_publishes),
    Plant(forget_who_publishes, GOING, "unpublished too early: ", with_a_pod_that_publishes),
    Plant(
        ignore_what_unpublishes, WORK, "beside what is unpublished: ", applied_again_beside_what_unpublishes
    ),
    Plant(
        start_beside_what_is_queued,
        {"operator_works_until_nothing_is_due", "time_passes_and_is_used"},
        "overlap: ",
        in_a_default_queue,
    ),
    Plant(suspend_and_forget_the_pod, {*WORK, "somebody_suspends_or_resumes"}, "untrue: suspended"),
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.bug.__name__)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.bug(monkeypatch)
    with pytest.raises(AssertionError, match=plant.found):
        walk(LIVES, machine=only(plant.rules, plant.corner), shrinks=False)


def test_a_machine_of_unknown_rules_is_refused() -> None:
    with pytest.raises(ValueError, match="no rules of the machine"):
        only({"nobody_does_anything"})
