# SPDX-License-Identifier: Apache-2.0
"""A job that is deleted and applied again: nothing of it starts while something of the one before may still write."""

import json

import pytest
from support.world.deletion import UNPUBLISH, end_unpublish
from support.world.rough import RoughWorld
from tuneyard_api import reasons


def in_training() -> RoughWorld:
    """The Job of a training is there."""
    world = RoughWorld()
    while "a-train-1" not in world.jobs():
        world.settle()
        world.turn()
    return world


def replace(world: RoughWorld, *kept: str) -> None:
    """Another FineTuneJob of the name; the garbage collector has been everywhere but at the kept kinds."""
    world.delete_job()
    for kind, _, name in list(world.cluster.objects):
        if kind not in {"FineTuneRuntime", *kept} or name.startswith("a-prepare"):
            world.cluster.remove(kind, name)
    world.apply_job()


@pytest.mark.parametrize("kept", ["Job", "Pod"])
def test_nothing_starts_beside_what_an_older_job_of_the_name_has_left(kept: str) -> None:
    world = in_training()
    world.turn(choice=-1)
    [pod] = [name for kind, _, name in world.cluster.objects if kind == "Pod" and "train" in name]
    replace(world, kept)
    world.settle()
    waiting = world.status.waiting_for
    assert waiting is not None
    assert (waiting.reason, waiting.name) == (reasons.NAME_CONFLICT, "a-train-1" if kept == "Job" else pod)
    assert "a-prepare-1" not in world.jobs()
    assert not world.cluster.of_kind("PersistentVolumeClaim"), "a pod that waits for the workspace gets none"
    world.come_to_rest()


def test_the_plan_of_a_job_never_has_the_name_that_an_older_one_s_had() -> None:
    """A kubelet that still knows a pod of the older one would hand out that one's plan, which is the same but for the uid."""
    world = in_training()
    older = [body["metadata"]["name"] for body in world.cluster.of_kind("ConfigMap")]
    replace(world, "ConfigMap")
    world.settle()
    [plan] = [body for body in world.cluster.of_kind("ConfigMap") if body["metadata"]["name"] not in older]
    assert json.loads(plan["data"]["job.json"])["uid"] == "uid-a2"
    [job] = world.cluster.of_kind("Job")
    assert plan["metadata"]["name"] in str(job["spec"]["template"]["spec"]["volumes"])
    world.come_to_rest()


def test_what_an_older_job_has_left_is_asked_for_and_not_only_waited_for() -> None:
    world = in_training()
    replace(world, "Job")
    world.told = [event for event in world.told if event[0] == "FineTuneJob"]
    world.operator_store.drop_absent("Job", (), 10_000)
    world.settle()
    assert world.status.waiting_for is not None
    assert world.status.waiting_for.name == "a-train-1"
    world.come_to_rest()


def unpublished_and_not_waited_for() -> tuple[RoughWorld, str]:
    """A pod unpublishes what an older job published, on a node that does not answer, and the next job is there."""
    world = RoughWorld(deletionPolicy="Delete")
    while not world.running_pods() or "publish" not in world.running_pods()[0]:
        world.settle()
        world.turn()
    world.end_pod(world.running_pods()[0], exit_code=1, reason="Error")
    world.delete_job()
    while not world.running_pods():
        world.advance(2)
        world.try_pass()
        world.settle()
        world.turn()
    [pod] = world.running_pods()
    assert pod.startswith(UNPUBLISH)
    world.force_job()
    while world.sweep():
        pass
    world.lost.add(pod)
    world.apply_job(deletionPolicy="Delete")
    return world, pod


@pytest.mark.parametrize("left", ["the Job", "the pod"])
@pytest.mark.parametrize("is_restarted", [False, True])
def test_nothing_is_published_while_an_older_job_of_the_name_unpublishes(
    left: str, *, is_restarted: bool
) -> None:
    world, pod = unpublished_and_not_waited_for()
    if left == "the pod":
        world.cluster.remove("Job", UNPUBLISH)
    if is_restarted:
        world.start_operator()
    for _ in range(20):
        world.settle()
        world.turn()
        world.advance(11)
        world.try_pass()
    waiting = world.status.waiting_for
    assert waiting is not None
    assert (waiting.reason, waiting.name) == (
        reasons.NAME_CONFLICT,
        pod if left == "the pod" else UNPUBLISH,
    )
    world.come_to_rest()
    assert world.registry == {"uid-a2"}


def test_what_is_unpublished_is_not_waited_for_once_that_is_over() -> None:
    world, pod = unpublished_and_not_waited_for()
    end_unpublish(world, pod)
    world.set_job(UNPUBLISH, conditions=[{"type": "Complete", "status": "True"}])
    world.settle()
    assert "a-prepare-1" in world.jobs()


def test_the_first_job_of_a_name_costs_no_such_question() -> None:
    world = RoughWorld()
    world.settle()
    assert not [call for call in world.cluster.calls if call.startswith(("list jobs", "list all pods"))]


def test_own_children_are_no_former_life() -> None:
    """Killed after its Job was made and before that was said: the Job is taken over."""
    world = RoughWorld()
    world.deliver()
    for calls in range(12):
        world.crash(calls)
        world.settle()
    assert world.jobs() == ["a-prepare-1"]


def test_a_stage_that_is_done_is_written_down_before_the_next_one_starts() -> None:
    world = RoughWorld()
    while "a-train-1" not in world.jobs():
        world.deliver()
        world.silence(0)
        world.deliver()
        world.try_pass()
        assert not ("a-train-1" in world.jobs() and world.conditions()["DataReady"][0] != "True")
        world.turn()
