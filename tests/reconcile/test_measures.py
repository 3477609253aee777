# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is told of a job's life: each end, failure and second once, and what all jobs do now."""

from typing import Any

from support.samples import failure_text, job_spec, result_text, runtime_without_endpoint
from support.world.queue import let_go, take_place
from support.world.world import World
from tuneyard_api.ledger import PhaseTimes
from tuneyard_api.pod_contract import FailureClass, Progress, Stage
from tuneyard_api.status import FineTuneJobStatus, PlanStatus, ProgressStatus, State
from tuneyard_operator.domain.measures import Census, Changes, Failed, census_of, changes_between, reason_of


def total(world: World, name: str) -> Any:
    """The sum of what a field has added."""
    return sum(getattr(changes, name) for changes in world.meter.changes)


def said(world: World, name: str) -> list[Any]:
    """Everything that a field has listed."""
    return [each for changes in world.meter.changes for each in getattr(changes, name) or ()]


def ready(**spec: Any) -> World:
    """A job on two GPUs whose data is prepared."""
    parallelism = {"gpusPerNode": 2}
    world = World(spec=job_spec(parallelism=parallelism, **spec), runtime=runtime_without_endpoint())
    world.settle()
    world.carry_out(Stage.PREPARE)
    return world


def run_training(world: World, attempt: int = 1) -> str:
    pod = world.make_pod(f"a-train-{attempt}")
    world.run_pod(pod)
    world.settle()
    world.one_pass()
    return pod


def end_training(world: World, pod: str, **said: Any) -> None:
    world.end_pod(pod, message=result_text(Stage.TRAIN, world.digest, **said))
    world.settle()


def test_a_job_s_waiting_and_training_are_told_once() -> None:
    world = ready()
    world.advance(40)
    pod = run_training(world)
    world.advance(100)
    end_training(world, pod, times={"seconds": {"loading": 10, "training": 90}, "unsavedSeconds": 0})
    world.carry_out(Stage.PUBLISH)
    assert said(world, "queue_seconds") == [40.0]
    assert total(world, "held_seconds") == 2 * 100
    assert total(world, "useful_seconds") == 2 * 90
    assert [each.ended for each in world.meter.changes if each.ended] == [("Succeeded", "Succeeded")]
    assert said(world, "failed") == []


def test_time_of_a_failed_attempt_is_held_and_not_useful() -> None:
    world = ready()
    pod = run_training(world)
    world.advance(60)
    text = failure_text(Stage.TRAIN, world.digest, FailureClass.INTERRUPTED, "evicted")
    world.end_pod(pod, exit_code=20, message=text)
    world.fail_job("a-train-1")
    world.settle()
    assert said(world, "failed") == [Failed("train", "Interrupted")]
    assert (total(world, "held_seconds"), total(world, "useful_seconds")) == (2 * 60, 0)
    pod = run_training(world, attempt=2)
    world.advance(30)
    end_training(world, pod)
    assert total(world, "held_seconds") == 2 * 90
    assert len(said(world, "queue_seconds")) == 2


def test_time_in_a_queue_is_waiting_and_a_place_that_is_taken_was_held_until_then() -> None:
    world = ready(scheduling={"queue": "gpus"})
    world.one_pass()
    world.advance(1000)
    let_go(world, "a-train-1")
    world.settle()
    world.one_pass()
    world.advance(10)
    run_training(world)
    assert said(world, "queue_seconds") == [1010.0]
    world.advance(50)
    take_place(world, "a-train-1")
    world.settle()
    world.one_pass()
    assert total(world, "held_seconds") == 2 * 50


def test_a_job_that_ends_badly_is_told_with_its_reason() -> None:
    world = ready(evaluation={"gate": {"minimum": {"rougeL": 0.9}}})
    end_training(world, run_training(world))
    assert [each.ended for each in world.meter.changes if each.ended] == [("Failed", "GateFailed")]


def test_how_long_serving_took_is_told_when_it_is_known() -> None:
    world = World()
    world.settle()
    for stage in Stage:
        world.carry_out(stage)
    world.advance(3)
    assert world.status.state is State.SUCCEEDED
    [served] = [each.served_seconds for each in world.meter.changes if each.served_seconds is not None]
    assert served == world.status.result.served_after_seconds  # type: ignore[union-attr]


def test_a_write_that_is_lost_tells_nothing() -> None:
    world = World()
    world.settle()
    status = world.status
    assert changes_between(status, status) == Changes()
    progress = status.model_copy(update={"progress": ProgressStatus(step=1, of=2, percent=50)})
    assert changes_between(status, progress) == Changes()


def test_all_jobs_are_counted_by_state_and_reason() -> None:
    waiting, training = ready(), ready()
    waiting.advance(100)
    run_training(training)
    trains = training.status.model_copy(
        update={"progress": ProgressStatus(step=1, of=2, percent=50, tokens_per_second=500.0)}
    )
    census = census_of([waiting.status, trains, trains, FineTuneJobStatus()], waiting.now())
    assert census == Census(
        jobs={
            (waiting.status.state.value, reason_of(waiting.status.conditions)): 1,
            ("Training", "Training"): 2,
            ("Pending", ""): 1,
        },
        gpus={"Training": 6} if waiting.status.state is State.TRAINING else {"Training": 4, "Waiting": 2},
        longest_wait={"Pending": 0.0},
        tokens_per_second=1000.0,
    )


def test_the_longest_wait_and_gpus_that_are_wanted_are_told_by_state() -> None:
    world = ready(scheduling={"queue": "gpus"})
    world.one_pass()
    plan = PlanStatus(digest="d", gpus=2, micro_batch_size=1, gradient_accumulation=1)
    census = census_of([world.status.model_copy(update={"plan": plan})], world.now())
    assert (census.gpus, census.longest_wait) == ({"Queued": 2}, {"Queued": 0.0})
    world.advance(70)
    assert census_of([world.status], world.now()).longest_wait == {"Queued": 70.0}


def test_what_is_told_adds_up_to_the_ledger_and_what_may_still_be_lost_is_not_useful() -> None:
    world = ready()
    run_training(world)
    for seconds, unsaved in ((60, 60), (120, 20)):
        world.advance(60)
        times = PhaseTimes(seconds={"training": float(seconds)}, unsaved_seconds=float(unsaved))
        world.progress.answer = Progress(
            stage=Stage.TRAIN, phase="training", step=seconds, of=400, times=times
        )
        world.one_pass()
        world.settle()
        ledger = world.status.ledger
        assert ledger is not None
        assert total(world, "held_seconds") == ledger.gpu_seconds == 2 * seconds, "told while it runs"
        assert total(world, "useful_seconds") == 2 * (seconds - unsaved)
