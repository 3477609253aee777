# SPDX-License-Identifier: Apache-2.0
"""The pods of one training take each other down: what counts is the pod that began it, also when it is gone."""

import pytest
from support.samples import (
    ended,
    failure_text,
    job_spec,
    result_text,
    runtime_without_endpoint,
    seen_job,
    seen_pod,
)
from support.world.world import World
from tuneyard_api import reasons
from tuneyard_api.pod_contract import FailureClass, Progress, Stage
from tuneyard_operator.domain.failures import Ending, classify, first_cause
from tuneyard_operator.domain.observed import SeenCondition, SeenPod
from tuneyard_operator.domain.verdict import StageFailure

LOST_ANOTHER = "another process of the training is gone; the next attempt continues from the last checkpoint"
TAKEN = SeenCondition("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")


def said(kind: FailureClass, words: str = "words", reason: str = "Error") -> SeenPod:
    """A pod that failed and told why."""
    return seen_pod(phase="Failed", terminated=ended(1, reason, failure_text(Stage.TRAIN, "d", kind, words)))


def died(*ending: object, **changes: object) -> SeenPod:
    """A pod that failed without a word of its own."""
    return seen_pod(phase="Failed", terminated=ended(*ending) if ending else None, **changes)


ECHO = said(FailureClass.INTERRUPTED, LOST_ANOTHER)
ABORTED, OOM_KILLED = died(134), died(137, "OOMKilled")
CASES: dict[str, tuple[SeenPod, SeenPod, FailureClass, str]] = {
    "the other one was interrupted first": (ECHO, OOM_KILLED, FailureClass.OUT_OF_MEMORY, "OOMKilled at its memory limit of 32Gi"),
    "the other one aborted first": (ABORTED, OOM_KILLED, FailureClass.OUT_OF_MEMORY, "OOMKilled"),
    "the other one ended with 1 first": (died(1), OOM_KILLED, FailureClass.OUT_OF_MEMORY, "OOMKilled"),
    "the kernel killed a worker, and its stage knows only that it is gone": (
        ECHO, said(FailureClass.INTERRUPTED, "no worker left a result", "OOMKilled"), FailureClass.OUT_OF_MEMORY, "OOMKilled",
    ),
    "the kernel killed one of several workers, which is no bug": (
        ECHO, said(FailureClass.BUG, "1 of 2 workers left a result", "OOMKilled"), FailureClass.OUT_OF_MEMORY, "OOMKilled",
    ),
    "a GPU was full": (ECHO, said(FailureClass.OUT_OF_MEMORY, "the GPU is full"), FailureClass.OUT_OF_MEMORY, "the GPU is full"),
    "a loss was not finite": (ABORTED, said(FailureClass.NON_FINITE_LOSS, "step 7"), FailureClass.NON_FINITE_LOSS, "step 7"),
    "what is wrong is known better than the memory limit": (
        ECHO, said(FailureClass.DISK_FULL, "full", "OOMKilled"), FailureClass.DISK_FULL, "full",
    ),
    "a program error took the others down": (ECHO, said(FailureClass.BUG, "KeyError: 'x'"), FailureClass.BUG, "KeyError: 'x'"),
    "a lost node made the other one abort": (
        ABORTED, died(disruption=TAKEN, node="node-1"), FailureClass.INTERRUPTED, "pod a-train-1-x on node-1: DeletionByTaintManager",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("order", [1, -1], ids=["", "the other way round"])
def test_what_began_it_counts_whichever_pod_is_looked_at_first(name: str, order: int) -> None:
    *pods, kind, words = CASES[name]
    failure = first_cause([of(pod) for pod in pods[::order]])
    assert failure is not None
    assert failure.failure_class is kind
    assert words in failure.message


def test_where_all_were_interrupted_none_began_it() -> None:
    assert first_cause([of(ECHO), of(died(143))]) is None
    assert classify(of(ECHO)).message == LOST_ANOTHER


@pytest.mark.parametrize("kind", [FailureClass.OUT_OF_MEMORY, FailureClass.INTERRUPTED, FailureClass.BUG])
def test_what_a_pod_said_that_is_gone_still_counts(kind: FailureClass) -> None:
    known = StageFailure(kind, "seen before")
    assert first_cause([of(ECHO)], known) == known


def of(pod: SeenPod) -> Ending:
    return Ending(Stage.TRAIN, 1, "d", pod, seen_job(), "32Gi")


@pytest.fixture
def two_pods() -> tuple[World, list[str]]:
    """A training on two nodes, both pods running."""
    world = World(
        spec=job_spec(parallelism={"nodes": 2}, training={"globalBatchSize": 8, "microBatchSize": 4}),
        runtime=runtime_without_endpoint(),
    )
    world.settle()
    world.carry_out(Stage.PREPARE)
    pods = [world.make_pod("a-train-1", suffix) for suffix in ("0-x", "1-y")]
    for pod in pods:
        world.run_pod(pod)
    world.settle()
    return world, pods


def test_a_pod_that_ran_out_of_memory_counts_though_its_job_has_removed_it(two_pods) -> None:
    """The first pod's end makes the Job controller delete the second one, which is dying of the reason for both."""
    world, (first, second) = two_pods
    words = failure_text(Stage.TRAIN, world.digest, FailureClass.INTERRUPTED, LOST_ANOTHER)
    world.end_pod(first, exit_code=20, reason="Error", message=words)
    world.settle()
    [_, attempt] = world.status.attempts
    assert (attempt.outcome, attempt.failure_class) == ("Running", None)
    world.delete("Pod", second)
    world.end_pod(second, exit_code=20, reason="OOMKilled", message=words)
    world.settle()
    world.collect_garbage()
    world.start_operator()
    world.fail_job("a-train-1")
    world.settle()
    failed, again = world.status.attempts[1:]
    assert (failed.outcome, failed.failure_class) == ("Failed", FailureClass.OUT_OF_MEMORY)
    assert failed.message
    assert "pod a-train-1-1-y: OOMKilled at its memory limit" in failed.message
    assert (again.number, again.micro_batch_size) == (2, 2)
    assert world.cluster.events[-1]["reason"] == reasons.SMALLER_BATCH


def test_a_pod_on_a_lost_node_counts_though_it_never_ended(two_pods) -> None:
    """It is marked, and then removed by whoever gives the node up; the other one only knows that it is gone."""
    world, (first, second) = two_pods
    words = failure_text(Stage.TRAIN, world.digest, FailureClass.INTERRUPTED, LOST_ANOTHER)
    world.end_pod(first, exit_code=20, reason="Error", message=words)
    marked = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": TAKEN.reason,
        "message": TAKEN.message,
    }
    world.set_pod(second, conditions=[marked])
    world.settle()
    assert world.jobs() == ["a-prepare-1", "a-train-1"], "it may still be writing"
    world.cluster.remove("Pod", second)
    world.fail_job("a-train-1")
    world.settle()
    failed, again = world.status.attempts[1:]
    assert (failed.failure_class, failed.interrupted, failed.charged) == (FailureClass.INTERRUPTED, 1, 0)
    assert failed.message
    assert failed.message.endswith("a-train-1-1-y: DeletionByTaintManager: " + TAKEN.message)
    assert (again.number, again.outcome) == (2, "Running")


def test_a_pod_that_was_only_to_be_taken_away_and_ends_well_has_not_failed(two_pods) -> None:
    world, pods = two_pods
    marked = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": ""}
    world.set_pod(pods[1], conditions=[marked])
    world.settle()
    assert world.status.attempts[1].failure_class is FailureClass.INTERRUPTED
    for pod in pods:
        world.end_pod(pod, message=result_text(Stage.TRAIN, world.digest))
    world.settle()
    attempt = world.status.attempts[1]
    assert (attempt.outcome, attempt.failure_class, attempt.message) == ("Succeeded", None, None)


@pytest.mark.parametrize(
    ("ready", "kind", "charged"),
    [("True", FailureClass.HUNG, 1), ("False", FailureClass.INTERRUPTED, 0)],
    ids=["a hang", "a lost node"],
)
def test_a_training_that_makes_no_progress_because_a_node_is_silent_is_not_charged(
    two_pods, ready: str, kind: FailureClass, charged: int
) -> None:
    """A node that loses its power closes no connection: the other pods wait for it."""
    world, pods = two_pods
    world.set_pod(pods[1], conditions=[{"type": "Ready", "status": ready}])
    world.settle()
    world.progress.answer = Progress(stage=Stage.TRAIN, phase="training", step=5, of=9, step_seconds=1.0)
    for _ in range(15):
        world.advance(10)
        world.one_pass()
    assert world.status.attempts[1].stopping == kind
    world.settle()
    for pod in pods:
        world.end_pod(pod, exit_code=20, reason="Error")
    world.collect_garbage()
    world.settle()
    attempt = world.status.attempts[1]
    assert (attempt.outcome, attempt.failure_class, attempt.charged) == ("Failed", kind, charged)
