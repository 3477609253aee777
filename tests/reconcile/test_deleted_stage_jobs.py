# SPDX-License-Identifier: Apache-2.0
"""Somebody deletes a stage's Job just as its pod ends: what the pod has done counts, and nothing is done twice."""

import pytest
from support.samples import job_spec, result_text, runtime_without_endpoint
from support.world.world import KEY, World
from tuneyard_api import names
from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.status import State

CHAIN = (Stage.PREPARE, Stage.TRAIN, Stage.PUBLISH)


def up_to(stage: Stage, **spec: object) -> tuple[World, str]:
    """The pod of this stage runs."""
    world = World(spec=job_spec(**spec), runtime=runtime_without_endpoint())
    world.settle()
    for each in CHAIN[: CHAIN.index(stage)]:
        world.carry_out(each)
    pod = world.make_pod(f"a-{stage}-1")
    world.run_pod(pod)
    world.settle()
    return world, pod


def succeed(world: World, pod: str, stage: Stage) -> None:
    world.end_pod(pod, message=result_text(stage, world.digest))


def done_once(world: World) -> None:
    """The job ends well after one attempt of each stage."""
    for stage in CHAIN:
        if not any(each.stage is stage and each.outcome == "Succeeded" for each in world.status.attempts):
            world.carry_out(stage)
    assert world.status.state is State.SUCCEEDED, world.status.message
    assert [(each.stage, each.outcome) for each in world.status.attempts] == [
        (stage, "Succeeded") for stage in CHAIN
    ]


@pytest.mark.parametrize("stage", CHAIN)
@pytest.mark.parametrize(
    "told", ["all", "the Job's end alone", "nothing of the pod's end", "after a restart"]
)
def test_a_job_deleted_as_its_pod_succeeds_costs_nothing(stage: Stage, told: str) -> None:
    world, pod = up_to(stage)
    succeed(world, pod, stage)
    world.cluster.remove("Job", f"a-{stage}-1")
    if told == "the Job's end alone":
        world.told = [event for event in world.told if event[:2] == ("Job", "DELETED")]
    elif told == "nothing of the pod's end":
        world.told = [event for event in world.told if event[0] != "Pod"]
    elif told == "after a restart":
        world.start_operator()
        world.one_pass()
    world.settle()
    done_once(world)


@pytest.mark.parametrize("stage", CHAIN)
@pytest.mark.parametrize("is_first", ["Job", "Pod"])
def test_pods_that_are_gone_with_their_job_have_told_how_they_ended(stage: Stage, is_first: str) -> None:
    world, pod = up_to(stage)
    succeed(world, pod, stage)
    world.cluster.remove("Job", f"a-{stage}-1")
    world.cluster.remove("Pod", pod)
    if is_first == "Pod":
        world.told.sort(key=lambda event: event[0] == "Job")
    world.settle()
    done_once(world)
    assert world.operator_store.children(KEY) == ((), ())


def test_the_end_of_a_pod_is_kept_though_the_deletion_is_learned_from_a_list() -> None:
    world, pod = up_to(Stage.TRAIN)
    succeed(world, pod, Stage.TRAIN)
    world.deliver()
    world.cluster.remove("Job", "a-train-1")
    world.cluster.remove("Pod", pod)
    world.told.clear()
    world.compare()
    world.settle()
    done_once(world)


def test_a_pod_that_outlives_its_job_is_waited_for_and_counts_when_it_ends_well() -> None:
    world, pod = up_to(Stage.TRAIN)
    world.cluster.remove("Job", "a-train-1")
    world.settle()
    assert world.status.attempts[-1].outcome == "Running"
    assert world.status.waiting_for is not None
    assert (world.status.waiting_for.kind, world.status.waiting_for.name) == ("Pod", pod)
    assert "Job a-train-1 of attempt 1 was deleted" in world.status.waiting_for.message
    assert "a-train-2" not in world.jobs()
    succeed(world, pod, Stage.TRAIN)
    world.settle()
    done_once(world)


def test_a_pod_that_outlives_its_job_and_is_interrupted_is_judged_by_its_end() -> None:
    world, pod = up_to(Stage.TRAIN)
    world.cluster.remove("Job", "a-train-1")
    world.settle()
    world.end_pod(pod, exit_code=143, reason="Error")
    world.settle()
    assert world.status.attempts[1].failure_class == FailureClass.INTERRUPTED
    assert pod in (world.status.attempts[1].message or "")
    assert world.jobs()[-1] == "a-train-2"


def test_on_two_nodes_both_pods_must_have_ended_well() -> None:
    world, first = up_to(Stage.TRAIN, parallelism={"nodes": 2, "gpusPerNode": 1})
    second = world.make_pod("a-train-1", "y")
    world.run_pod(second)
    world.settle()
    succeed(world, first, Stage.TRAIN)
    world.cluster.remove("Job", "a-train-1")
    world.cluster.remove("Pod", first)
    world.settle()
    assert world.status.attempts[-1].outcome == "Running"
    succeed(world, second, Stage.TRAIN)
    world.settle()
    done_once(world)


def test_a_pod_that_a_person_s_older_job_of_the_name_has_left_is_not_ours() -> None:
    """Same name, same plan, same attempt: only the plan's ConfigMap tells them apart."""
    world, pod = up_to(Stage.TRAIN)
    succeed(world, pod, Stage.TRAIN)
    world.cluster.remove("Job", "a-train-1")
    body = world.cluster.objects["Pod", "team", pod]
    body["spec"]["volumes"][0]["configMap"]["name"] = names.plan_name("a", "uid-of-another")
    world.told.clear()
    world.cluster.store("Pod", body)
    world.compare()
    world.settle()
    assert world.status.attempts[1].outcome == "Failed"
    assert world.jobs()[-1] == "a-train-2"


def test_a_job_that_is_suspended_while_a_pod_outlives_its_job_says_so_until_it_has_ended() -> None:
    world, pod = up_to(Stage.TRAIN)
    world.cluster.remove("Job", "a-train-1")
    world.edit(suspend=True)
    world.settle()
    states = [world.status.state]
    succeed(world, pod, Stage.TRAIN)
    world.settle()
    assert [*states, world.status.state] == [State.WAITING, State.SUSPENDED]
    world.edit(suspend=False)
    world.settle()
    done_once(world)
