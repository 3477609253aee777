# SPDX-License-Identifier: Apache-2.0
"""A training that has spent its GPU hours stops with a checkpoint, says so, holds no GPU, and continues with a larger budget."""

import pytest
from support.samples import job_spec, runtime_without_endpoint
from support.world.training import fail, finish, in_training, leave, run_training, start_training
from support.world.world import World
from tuneyard_api import reasons
from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.status import State

HOUR = 3600


def spend(world: World, hours: float) -> None:
    world.advance(hours * HOUR)
    world.one_pass()
    world.settle()


def held(world: World) -> int:
    assert world.status.ledger is not None
    return world.status.ledger.gpu_seconds


def test_a_spent_budget_stops_the_training_at_a_checkpoint() -> None:
    world, pod = in_training(budget={"gpuHours": 2})
    spend(world, 1.9)
    assert world.status.attempts[-1].stopping is None
    assert world.requeue is not None
    assert world.requeue <= 0.1 * HOUR + 1, "it is looked at again when the budget ends"
    spend(world, 0.2)
    assert world.status.attempts[-1].stopping == reasons.SUSPENDING
    assert world.status.attempts[-1].message == "the budget is spent: checkpoint and leave"
    assert world.status.state is State.TRAINING, "a pod still writes its checkpoint"
    leave(world, pod)
    assert world.status.state is State.SUSPENDED
    assert world.conditions()["Suspended"] == ("True", reasons.BUDGET_SPENT)
    assert (world.status.message or "").startswith(
        "spent 2.1 GPU hours of spec.budget.gpuHours 2, and holds no GPU"
    )
    assert "a-train-1" not in world.jobs()
    assert world.requeue is None, "only a change of the job makes it due"


def test_a_restarted_operator_does_not_forget_what_was_spent() -> None:
    world, pod = in_training(budget={"gpuHours": 2})
    spend(world, 2.1)
    leave(world, pod)
    before = world.status
    world.start_operator()
    world.settle()
    assert world.status == before
    assert world.jobs() == ["a-prepare-1"]


def test_a_larger_budget_continues_the_training() -> None:
    world, pod = in_training(budget={"gpuHours": 2})
    spend(world, 2.1)
    leave(world, pod)
    world.edit(budget={"gpuHours": 3})
    world.settle()
    assert world.conditions()["Suspended"] == ("False", reasons.RESUMED)
    assert world.jobs() == ["a-prepare-1", "a-train-2"]
    finish(world, 2)


def test_what_failed_attempts_have_run_counts_too() -> None:
    world, pod = in_training(budget={"gpuHours": 2})
    spend(world, 1.5)
    fail(world, pod, FailureClass.INTERRUPTED)
    assert held(world) == pytest.approx(1.5 * HOUR, abs=2)
    run_training(world, 2)
    spend(world, 0.6)
    assert world.status.attempts[-1].stopping == reasons.SUSPENDING


def test_each_gpu_spends() -> None:
    world = World(
        spec=job_spec(
            budget={"gpuHours": 8}, parallelism={"gpusPerNode": 4}, training={"globalBatchSize": 4}
        ),
        runtime=runtime_without_endpoint(),
    )
    start_training(world)
    spend(world, 1.9)
    assert world.status.attempts[-1].stopping is None
    spend(world, 0.2)
    assert world.status.attempts[-1].stopping == reasons.SUSPENDING


def test_neither_preparing_nor_waiting_spends() -> None:
    world = World(spec=job_spec(budget={"gpuHours": 1}), runtime=runtime_without_endpoint())
    world.settle()
    world.advance(2 * HOUR)
    world.carry_out(Stage.PREPARE)
    world.make_pod("a-train-1")
    spend(world, 2)
    assert world.status.attempts[-1].stopping is None
    assert held(world) == 0


def test_a_training_that_has_ended_is_published_whatever_it_has_spent() -> None:
    world, _ = in_training(budget={"gpuHours": 1})
    world.advance(2 * HOUR)
    finish(world, 1)


def test_a_training_on_cpu_spends_no_gpu_hours() -> None:
    world = World(
        spec=job_spec(budget={"gpuHours": 1}), runtime=runtime_without_endpoint() | {"accelerator": "none"}
    )
    start_training(world)
    spend(world, 5)
    assert world.status.attempts[-1].stopping is None


def test_a_suspended_job_says_that_and_not_its_budget() -> None:
    world, pod = in_training(budget={"gpuHours": 2})
    world.edit(suspend=True)
    world.settle()
    world.advance(2.1 * HOUR)
    leave(world, pod)
    assert world.conditions()["Suspended"] == ("True", reasons.SUSPENDED)
    world.edit(suspend=False)
    world.settle()
    assert world.conditions()["Suspended"] == ("True", reasons.BUDGET_SPENT)
    assert world.jobs() == ["a-prepare-1"]
