# SPDX-License-Identifier: Apache-2.0
"""What is decided on an old view of the world is never written over what is newer."""

import asyncio
import copy

import pytest
from support.samples import runtime_without_endpoint
from support.world.world import KEY, World
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import State
from tuneyard_operator.ports import ClusterError


def test_a_late_event_does_not_bring_a_deleted_pod_back() -> None:
    world = World()
    world.settle()
    pod = world.make_pod("a-prepare-1")
    world.deliver()
    late = copy.deepcopy(world.cluster.objects["Pod", "team", pod])
    world.cluster.remove("Pod", pod)
    world.deliver()
    world.operator_store.put("Pod", late)
    assert world.operator_store.children(KEY)[1] == ()


def test_a_pod_of_the_same_name_made_later_is_seen() -> None:
    world = World()
    world.settle()
    world.cluster.remove("Pod", world.make_pod("a-prepare-1"))
    world.deliver()
    world.make_pod("a-prepare-1")
    world.deliver()
    assert len(world.operator_store.children(KEY)[1]) == 1


def test_an_operator_that_slept_through_a_stage_writes_nothing() -> None:
    world = World(runtime=runtime_without_endpoint())
    world.settle()
    sleeper = copy.deepcopy(world.operator_store)
    awake = world.operator_store
    world.carry_out(Stage.PREPARE)
    status = world.status
    world.operator_store = world.reconciler.store = world.reconciler.gatherer.store = sleeper
    world.cluster.objects.pop(("Job", "team", "a-prepare-1"))
    sleeper.drop_absent("Job", (), 10_000)  # it learns of the end of the Job before it learns of the status
    jobs = world.jobs()
    with pytest.raises(ClusterError, match="modified"):
        asyncio.run(world.reconciler.reconcile(KEY))
    assert world.status == status
    assert world.jobs() == jobs
    world.operator_store = world.reconciler.store = world.reconciler.gatherer.store = awake
    world.carry_out(Stage.TRAIN)
    world.carry_out(Stage.PUBLISH)
    assert world.status.state is State.SUCCEEDED


def test_an_operator_that_slept_through_a_retry_ends_nothing_of_what_came_after() -> None:
    """It has the status of before, in which the training must run again, and asks afresh which Jobs there are."""
    world = World(runtime=runtime_without_endpoint())
    world.settle()
    world.carry_out(Stage.PREPARE)
    pod = world.make_pod("a-train-1")
    world.run_pod(pod)
    world.settle()
    world.end_pod(pod, exit_code=137)
    world.set_job("a-train-1", conditions=[{"type": "Failed", "status": "True"}])
    while world.status.attempts[-1].outcome == "Running":
        world.deliver()
        world.one_pass()
    sleeper = copy.deepcopy(world.operator_store)
    awake = world.operator_store
    world.settle()
    world.carry_out(Stage.TRAIN, 2)
    jobs = world.jobs()
    assert jobs[-1] == "a-publish-1"
    world.operator_store = world.reconciler.store = world.reconciler.gatherer.store = sleeper
    with pytest.raises(ClusterError, match="modified"):
        asyncio.run(world.reconciler.reconcile(KEY))
    assert world.jobs() == jobs
    world.operator_store = world.reconciler.store = world.reconciler.gatherer.store = awake
    world.carry_out(Stage.PUBLISH)
    assert world.status.state is State.SUCCEEDED


def test_a_job_is_not_called_suspended_while_a_pod_runs_that_no_watch_has_reported() -> None:
    world = World(runtime=runtime_without_endpoint())
    world.settle()
    world.run_pod(world.make_pod("a-prepare-1"))
    world.told = [event for event in world.told if event[0] != "Pod"]
    world.cluster.remove("Job", "a-prepare-1")
    world.edit(suspend=True)
    world.settle()
    assert world.status.state is State.WAITING
    assert world.status.waiting_for is not None
    assert world.status.waiting_for.name == "a-prepare-1-x"
    world.end_pod("a-prepare-1-x", exit_code=20)
    world.settle()
    assert world.status.state is State.SUSPENDED


def test_an_operator_whose_lease_may_be_another_s_creates_nothing() -> None:
    world = World(runtime=runtime_without_endpoint())
    world.deliver()
    world.reconciler.may_write = lambda: False
    with pytest.raises(ClusterError, match="another replica"):
        asyncio.run(world.reconciler.reconcile(KEY))
    assert world.jobs() == []
