# SPDX-License-Identifier: Apache-2.0
"""A Job that Kueue holds back or takes the place of: said with its reason, no deadline runs, no retry is spent."""

from typing import Any

import pytest
from support.samples import failure_text, job_spec, result_text, runtime_spec, runtime_without_endpoint
from support.world.queue import let_go, take_place
from support.world.training import QUEUE_IS_FULL, finish, in_queue, in_training
from support.world.world import World
from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.status import State
from tuneyard_operator.domain.held import why_held
from tuneyard_operator.domain.observed import SeenQueue
from tuneyard_operator.domain.parsing import parse_job, parse_queue

DAY = 86_400


def spec_of(world: World, job: str) -> dict[str, Any]:
    spec: dict[str, Any] = world.cluster.objects["Job", "team", job]["spec"]
    return spec


def labels_of(world: World, job: str) -> dict[str, str]:
    labels: dict[str, str] = world.cluster.objects["Job", "team", job]["metadata"]["labels"]
    return labels


def two_nodes(world: World, *statuses: dict[str, Any]) -> list[str]:
    pods = [world.make_pod("a-train-1", suffix=f"{rank}-x") for rank in (0, 1)]
    for pod, status in zip(pods, statuses, strict=True):
        world.run_pod(pod)
        if status:
            world.end_pod(pod, **status)
    return pods


def test_only_the_training_is_in_the_named_queue_and_is_suspended_from_the_start() -> None:
    world = in_queue()
    assert labels_of(world, "a-train-1")[names.LABEL_QUEUE] == "gpus"
    assert spec_of(world, "a-train-1")["suspend"] is True
    assert names.LABEL_QUEUE not in spec_of(world, "a-train-1")["template"]["metadata"]["labels"]
    assert names.LABEL_QUEUE not in labels_of(world, "a-prepare-1")
    assert "suspend" not in spec_of(world, "a-prepare-1")


def test_a_job_that_names_no_queue_is_left_to_kueue() -> None:
    world, _ = in_training()
    assert names.LABEL_QUEUE not in labels_of(world, "a-train-1")
    assert "suspend" not in spec_of(world, "a-train-1")
    assert not [call for call in world.cluster.calls if "queue" in call]


def test_a_job_that_waits_for_quota_says_where_and_why() -> None:
    world = in_queue()
    assert world.status.state is State.QUEUED
    assert world.conditions()["Scheduled"] == ("False", reasons.QUEUED)
    waiting = world.status.waiting_for
    assert waiting is not None
    assert (waiting.kind, waiting.name) == ("Workload", "job-a-train-1-8f3a1")
    assert waiting.message == f"ClusterQueue team-a: {QUEUE_IS_FULL}"
    assert not [event for event in world.cluster.events if event["reason"] == reasons.QUEUED]
    requests = len(world.cluster.calls)
    world.one_pass()
    assert world.cluster.calls[requests:] == ["ask queue gpus"], "a second look writes nothing"


@pytest.mark.parametrize(("position", "seconds"), [(1, 30), (9, 30), (25, 90), (1000, 300)])
def test_the_place_in_the_queue_is_told_and_looked_at_less_often_far_behind(
    position: int, seconds: float
) -> None:
    world = in_queue()
    world.cluster.seen_queue = SeenQueue("job-a-train-1-8f3a1", "team-a", QUEUE_IS_FULL, position)
    world.one_pass()
    waiting = world.status.waiting_for
    assert waiting is not None
    assert (waiting.cluster_queue, waiting.position) == ("team-a", position)
    assert waiting.message == f"ClusterQueue team-a, position {position}: {QUEUE_IS_FULL}"
    job = parse_job(world.cluster.objects["Job", "team", "a-train-1"])
    assert job is not None
    assert why_held(job, world.cluster.seen_queue).again_after == seconds
    world.cluster.seen_queue = SeenQueue("job-a-train-1-8f3a1", "team-a", QUEUE_IS_FULL)
    world.one_pass()
    waiting = world.status.waiting_for
    assert waiting is not None
    assert waiting.position is None, "what Kueue says no more is not kept"


@pytest.mark.parametrize(
    ("queue", "kind", "name", "words"),
    [
        (SeenQueue(is_served=False), "LocalQueue", "gpus", "this cluster has no Kueue"),
        (SeenQueue("job-a", None, "LocalQueue gpus doesn't exist"), "LocalQueue", "gpus", "does not exist in this namespace"),
        (SeenQueue(None, "team-a"), "LocalQueue", "gpus", "Kueue has no Workload for Job a-train-1 yet"),
        (SeenQueue("job-a", "team-a"), "Workload", "job-a", "ClusterQueue team-a: not looked at yet"),
    ],
    ids=["no Kueue", "no such queue", "no Workload yet", "not looked at"],
)  # fmt: skip
def test_what_is_missing_is_named(queue: SeenQueue, kind: str, name: str, words: str) -> None:
    world = in_queue()
    world.cluster.seen_queue = queue
    world.one_pass()
    assert world.status.state is State.QUEUED
    waiting = world.status.waiting_for
    assert waiting is not None
    assert (waiting.kind, waiting.name) == (kind, name)
    assert words in waiting.message


def test_a_job_that_somebody_suspends_without_a_queue_says_so() -> None:
    world, _ = in_training()
    take_place(world, "a-train-1")
    world.settle()
    world.one_pass()
    waiting = world.status.waiting_for
    assert waiting is not None
    assert (waiting.kind, waiting.name) == ("Job", "a-train-1")
    assert "somebody has set its spec.suspend" in waiting.message


def test_the_pending_deadline_runs_only_once_the_queue_has_let_the_job_go() -> None:
    world = in_queue(deadlines={"pendingSeconds": 600})
    world.advance(DAY)
    world.one_pass()
    assert world.status.state is State.QUEUED
    assert "list warnings" not in world.cluster.calls, "the queue says why; no event does"
    let_go(world, "a-train-1")
    world.settle()
    world.advance(599)
    world.one_pass()
    assert world.status.state is State.TRAINING
    world.advance(1)
    world.one_pass()
    assert world.conditions()["Succeeded"] == ("False", reasons.PENDING_DEADLINE)


def test_an_operator_that_was_away_counts_the_deadline_from_when_the_queue_let_the_job_go() -> None:
    world = in_queue(deadlines={"pendingSeconds": 600})
    world.advance(DAY)
    let_go(world, "a-train-1")
    world.advance(10)
    world.start_operator()
    world.one_pass()
    assert world.status.state is State.TRAINING, world.status.message


def test_a_job_that_is_let_go_while_nobody_has_begun_it_is_not_late() -> None:
    world = in_queue(deadlines={"pendingSeconds": 600})
    world.advance(DAY)
    body = world.cluster.objects["Job", "team", "a-train-1"]
    world.cluster.store("Job", {**body, "spec": {**body["spec"], "suspend": False}})
    for _ in range(3):
        world.deliver()
        world.one_pass()
    assert world.status.state is State.TRAINING, world.status.message


def without_its_place() -> World:
    """A training of a day has lost its place and its pods, and the operator has not looked since."""
    world, pod = in_training(scheduling={"queue": "gpus"}, deadlines={"pendingSeconds": 600})
    let_go(world, "a-train-1")
    world.settle()
    world.one_pass()
    world.advance(DAY)
    take_place(world, "a-train-1")
    world.end_pod(pod, exit_code=20, reason="Error")
    world.collect_garbage()
    return world


def test_a_place_that_was_taken_away_after_a_day_is_not_late() -> None:
    world = without_its_place()
    world.settle()
    assert world.status.state is State.QUEUED, world.status.message


def test_a_place_that_was_given_back_before_the_operator_looked_is_not_late() -> None:
    world = without_its_place()
    let_go(world, "a-train-1")
    world.settle()
    assert world.status.state is State.TRAINING, world.status.message
    world.advance(600)
    world.one_pass()
    assert world.conditions()["Succeeded"] == ("False", reasons.PENDING_DEADLINE)


def test_a_place_that_was_given_back_and_that_nobody_has_begun_is_not_late() -> None:
    world = without_its_place()
    body = world.cluster.objects["Job", "team", "a-train-1"]
    world.cluster.store("Job", {**body, "spec": {**body["spec"], "suspend": False}})
    world.settle()
    assert world.status.state is State.TRAINING, world.status.message


def test_a_job_in_the_default_queue_waits_with_every_stage() -> None:
    world = World(spec=job_spec(deadlines={"activeSeconds": 100}), runtime=runtime_without_endpoint())
    world.cluster.has_default_queue = True
    world.settle()
    world.one_pass()
    assert world.status.state is State.QUEUED
    assert world.conditions()["DataReady"] == ("False", reasons.QUEUED)
    world.advance(DAY)
    world.one_pass()
    let_go(world, "a-prepare-1")
    world.settle()
    assert world.status.state is State.PREPARING
    world.advance(99)
    world.carry_out(Stage.PREPARE)
    [prepared] = world.status.attempts[:1]
    assert (prepared.outcome, prepared.queued_seconds, prepared.queued_since) == ("Succeeded", DAY, None)
    assert world.status.active_seconds == 99


def test_a_place_that_is_taken_away_costs_no_retry_and_the_same_attempt_goes_on() -> None:
    world, pod = in_training(
        scheduling={"queue": "gpus"}, retry={"maxAttempts": 1, "maxInterruptions": 0}, deadlines={"activeSeconds": 100}
    )  # fmt: skip
    let_go(world, "a-train-1")
    world.settle()
    world.one_pass()
    world.advance(60)
    take_place(world, "a-train-1")
    world.settle()
    assert world.status.state is State.QUEUED
    assert world.conditions()["Trained"] == ("False", reasons.QUEUED)
    world.end_pod(pod, exit_code=20, reason="Error")
    world.collect_garbage()
    world.settle()
    assert world.status.state is State.QUEUED
    assert world.status.active_seconds == 60
    world.advance(DAY)
    world.one_pass()
    let_go(world, "a-train-1")
    world.settle()
    again = world.make_pod("a-train-1", suffix="y")
    world.run_pod(again)
    world.settle()
    world.one_pass()
    assert world.status.state is State.TRAINING, world.status.message
    world.carry_out_pod(again, Stage.TRAIN)
    world.carry_out(Stage.PUBLISH)
    assert world.status.state is State.SUCCEEDED, world.status.message
    trainings = [each for each in world.status.attempts if each.stage is Stage.TRAIN]
    assert [(each.number, each.charged, each.interrupted) for each in trainings] == [(1, 0, 0)]
    assert trainings[0].queued_seconds >= DAY


def test_what_a_pod_says_while_it_loses_its_place_is_no_failure_of_the_next_run() -> None:
    world = in_queue(parallelism={"nodes": 2}, retry={"maxAttempts": 1})
    let_go(world, "a-train-1")
    world.settle()
    bug = failure_text(Stage.TRAIN, world.digest, FailureClass.BUG, "lost the other process")
    two_nodes(world, {"exit_code": 1, "reason": "Error", "message": bug}, {})
    world.settle()
    take_place(world, "a-train-1")
    world.settle()
    world.one_pass()
    assert world.status.attempts[-1].failure_class is None
    world.advance(DAY)
    let_go(world, "a-train-1")
    world.settle()
    assert world.status.attempts[-1].failure_class is None
    for pod in world.cluster.of_kind("Pod"):
        if pod["metadata"]["name"].startswith("a-train"):
            world.cluster.remove("Pod", pod["metadata"]["name"])
    world.fail_job("a-train-1")
    world.settle()
    assert world.status.attempts[-1].number == 2, world.status.message


def test_several_nodes_start_again_together_when_one_had_ended() -> None:
    world = in_queue(parallelism={"nodes": 2})
    let_go(world, "a-train-1")
    world.settle()
    first, second = two_nodes(world, {}, {"message": result_text(Stage.TRAIN, world.digest)})
    world.settle()
    take_place(world, "a-train-1")
    world.settle()
    world.end_pod(first, exit_code=20, reason="Error")
    world.collect_garbage()
    world.settle()
    assert "a-train-1" not in world.jobs()
    assert spec_of(world, "a-train-2")["suspend"] is True
    assert second not in [pod["metadata"]["name"] for pod in world.cluster.of_kind("Pod")]


def test_a_person_suspends_a_job_that_is_queued() -> None:
    world = in_queue()
    world.advance(DAY)
    world.edit(suspend=True)
    world.settle()
    assert world.status.state is State.SUSPENDED
    assert "a-train-1" not in world.jobs()
    stopped = world.status.attempts[-1]
    assert (stopped.outcome, stopped.queued_since, stopped.queued_seconds) == ("Stopped", None, DAY)
    world.edit(suspend=False)
    world.settle()
    world.one_pass()
    assert world.status.state is State.QUEUED
    let_go(world, "a-train-2")
    world.settle()
    finish(world, 2)


def test_a_gpu_runtime_and_a_cpu_runtime_queue_alike() -> None:
    cpu = runtime_spec(accelerator="none", servedModels=[])
    world = World(spec=job_spec(scheduling={"queue": "cpus"}), runtime=cpu)
    world.settle()
    world.carry_out(Stage.PREPARE)
    assert labels_of(world, "a-train-1")[names.LABEL_QUEUE] == "cpus"


def workload(*conditions: dict[str, str], active: bool = True, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "job-a"},
        "spec": {"active": active, "queueName": "gpus"},
        "status": {"conditions": list(conditions), **status},
    }


def condition(kind: str, status: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": "R", "message": message}


LOCAL = {"spec": {"clusterQueue": "team-a"}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (workload(), ""),
        (workload(condition("QuotaReserved", "False", QUEUE_IS_FULL)), QUEUE_IS_FULL),
        (
            workload(condition("Evicted", "True", "Preempted for b"), condition("QuotaReserved", "False", QUEUE_IS_FULL)),
            f"Preempted for b; {QUEUE_IS_FULL}",
        ),
        (workload(condition("Evicted", "False", "old"), condition("QuotaReserved", "False", QUEUE_IS_FULL)), QUEUE_IS_FULL),
        (
            workload(
                condition("QuotaReserved", "True"),
                admissionChecks=[{"name": "prov", "state": "Pending", "message": "no nodes yet"}],
            ),
            "admission check prov: no nodes yet",
        ),
        (workload(active=False), "the Workload is deactivated (its spec.active is false)"),
    ],
    ids=["new", "no quota", "preempted", "preempted before", "checks", "deactivated"],
)  # fmt: skip
def test_the_reason_is_kueue_s_own(body: dict[str, Any], words: str) -> None:
    assert parse_queue(body, LOCAL, 3) == SeenQueue("job-a", "team-a", words, position=3)
    assert parse_queue(None, None, None) == SeenQueue()
