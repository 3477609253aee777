# SPDX-License-Identifier: Apache-2.0
"""What a job does when clusters do what they do: memory that is short, interruptions, hangs; and suspension."""

from support.samples import job_spec, result_text
from support.world.training import fail, finish, in_training, leave
from support.world.world import World
from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import ENV_MICRO_BATCH, FailureClass, Progress, Stage
from tuneyard_api.status import State
from tuneyard_operator.domain.observed import ReplicaAnswer

DAY = 86_400


def micro_batch_of(world: World, job: str) -> list[str]:
    [container] = world.cluster.objects["Job", "team", job]["spec"]["template"]["spec"]["containers"]
    return [each["value"] for each in container["env"] if each["name"] == ENV_MICRO_BATCH]


def test_out_of_memory_continues_with_half_the_micro_batch_until_it_is_1() -> None:
    world, pod = in_training(training={"globalBatchSize": 8, "microBatchSize": 4})
    for attempt, (size, accumulation) in enumerate([(2, 4), (1, 8)], start=2):
        fail(world, pod, FailureClass.OUT_OF_MEMORY, f"a-train-{attempt - 1}")
        assert micro_batch_of(world, f"a-train-{attempt}") == [str(size)]
        assert world.status.attempts[-1].micro_batch_size == size
        assert world.cluster.events[-1]["reason"] == reasons.SMALLER_BATCH
        assert f"{size} x accumulation {accumulation}" in world.cluster.events[-1]["note"]
        pod = world.make_pod(f"a-train-{attempt}")
        world.run_pod(pod)
        world.settle()
        assert f"micro batch {size}" in (world.status.message or "")
    fail(world, pod, FailureClass.OUT_OF_MEMORY, "a-train-3")
    assert world.status.state is State.FAILED
    assert world.conditions()["Succeeded"] == ("False", "OutOfMemory")


def test_a_restarted_operator_waits_as_long_as_the_one_before() -> None:
    world, pod = in_training()
    fail(world, pod, FailureClass.UPSTREAM)
    waiting = world.status.waiting_for
    assert waiting is not None
    assert (waiting.name, waiting.reason) == ("a-train-2", reasons.BACKING_OFF)
    assert "starts at 2026-01-01T12:00:10Z" in waiting.message
    assert world.status.state is State.WAITING
    for seconds in (4, 4):
        world.advance(seconds)
        world.start_operator()
        world.settle()
        assert "a-train-2" not in world.jobs()
        assert world.status.waiting_for == waiting
    assert world.requeue is not None
    assert world.requeue <= 2.1
    world.advance(world.requeue)
    world.one_pass()
    assert "a-train-2" in world.jobs()
    finish(world, 2)


def test_a_clock_that_went_back_behind_the_end_of_an_attempt_does_not_hold_the_next_one_back() -> None:
    world, pod = in_training()
    fail(world, pod, FailureClass.UPSTREAM)
    world.advance(-3600)
    world.one_pass()
    assert "a-train-2" in world.jobs()


def test_an_interruption_resumes_at_once_and_costs_no_attempt() -> None:
    world, pod = in_training(retry={"maxAttempts": 1})
    fail(world, pod, FailureClass.INTERRUPTED)
    assert "a-train-2" in world.jobs()
    assert (world.status.attempts[-1].charged, world.status.attempts[-1].interrupted) == (0, 1)
    finish(world, 2)


def test_interruptions_are_bounded() -> None:
    world, pod = in_training(retry={"maxInterruptions": 0})
    fail(world, pod, FailureClass.INTERRUPTED)
    assert world.conditions()["Succeeded"] == ("False", reasons.INTERRUPTED_TOO_OFTEN)


def test_suspend_stops_at_a_checkpoint_and_resume_continues_from_there() -> None:
    world, pod = in_training()
    world.edit(suspend=True)
    world.deliver()
    world.one_pass()
    assert world.status.attempts[-1].stopping == reasons.SUSPENDING, "why is written before the deed"
    assert "deletionTimestamp" not in world.cluster.objects["Job", "team", "a-train-1"]["metadata"]
    world.settle()
    assert world.status.state is State.TRAINING, "it is not suspended while a pod runs"
    assert world.conditions()["Trained"] == ("False", reasons.SUSPENDING)
    leave(world, pod)
    assert world.status.state is State.SUSPENDED
    assert world.conditions()["Suspended"] == ("True", reasons.SUSPENDED)
    assert "Trained" not in world.conditions(), "nothing trains"
    assert (world.status.attempts[-1].outcome, world.requeue) == ("Stopped", None)
    assert "a-train-1" not in world.jobs()
    world.start_operator()
    world.settle()
    world.edit(suspend=False)
    world.settle()
    assert world.conditions()["Suspended"] == ("False", reasons.RESUMED)
    assert world.jobs() == ["a-prepare-1", "a-train-2"]
    finish(world, 2)


def test_a_job_that_is_born_suspended_starts_nothing() -> None:
    world = World(spec=job_spec(suspend=True))
    world.settle()
    assert (world.status.state, world.jobs()) == (State.SUSPENDED, [])
    assert world.cluster.of_kind("PersistentVolumeClaim") == []
    world.edit(suspend=False)
    world.settle()
    assert world.jobs() == ["a-prepare-1"]


def test_what_an_operator_started_and_did_not_live_to_say_is_stopped_too() -> None:
    world = World()
    world.settle()
    body = world.cluster.objects[names.JOB_KIND, "team", "a"]
    world.cluster.store(names.JOB_KIND, {**body, "status": {}})
    world.edit(suspend=True)
    world.start_operator()
    world.settle()
    world.one_pass()
    world.settle()
    assert world.jobs() == []
    assert world.status.state is State.SUSPENDED


def test_what_an_older_job_of_the_name_has_left_starts_nothing_while_suspended() -> None:
    world, _ = in_training()
    world.cluster.remove(names.JOB_KIND, "a")
    metadata = {"name": "a", "namespace": "team", "uid": "uid-new"}
    world.cluster.store(names.JOB_KIND, {"metadata": metadata, "spec": job_spec(suspend=True)})
    world.settle()
    assert world.status.state is State.SUSPENDED
    assert world.status.plan is None


def test_what_ended_well_while_it_was_to_be_suspended_is_not_done_again() -> None:
    world, pod = in_training()
    world.edit(suspend=True)
    world.deliver()
    world.one_pass()
    world.end_pod(pod, message=result_text(Stage.TRAIN, world.digest))
    world.settle()
    assert world.conditions()["Evaluated"][0] == "True"
    assert world.status.state is State.SUSPENDED
    world.edit(suspend=False)
    world.settle()
    assert world.jobs() == ["a-prepare-1", "a-train-1", "a-publish-1"]


def test_a_job_whose_creation_was_not_answered_is_found_when_it_is_suspended() -> None:
    world = World()
    world.settle()
    world.carry_out(Stage.PREPARE)
    body = world.cluster.objects[names.JOB_KIND, "team", "a"]
    attempts = [each for each in body["status"]["attempts"] if each["stage"] == "prepare"]
    world.cluster.store(names.JOB_KIND, {**body, "status": {**body["status"], "attempts": attempts}})
    world.edit(suspend=True)
    world.start_operator()
    world.settle()
    world.one_pass()
    world.settle()
    assert world.jobs() == ["a-prepare-1"]
    assert world.status.state is State.SUSPENDED


def test_the_endpoint_s_patience_begins_anew_after_a_suspension() -> None:
    world = World(spec=job_spec(serve={"timeoutSeconds": 60}))
    world.settle()
    world.servers.replicas = (ReplicaAnswer("10.0.0.1:8000", problem="does not have a yet"),)
    for stage in Stage:
        world.carry_out(stage)
    assert world.status.state is State.SERVING
    world.edit(suspend=True)
    world.settle()
    assert world.status.state is State.SUSPENDED
    world.advance(DAY)
    asked = len(world.servers.asked)
    world.one_pass()
    assert len(world.servers.asked) == asked
    world.edit(suspend=False)
    world.settle()
    assert world.status.state is State.WAITING or world.status.state is State.SERVING
    world.advance(61)
    world.one_pass()
    assert world.conditions()["Succeeded"] == ("False", reasons.SERVE_TIMEOUT)


def beat(world: World, step: int, seconds: float, phase: str = "training") -> None:
    world.progress.answer = Progress(stage=Stage.TRAIN, phase=phase, step=step, of=100, step_seconds=60.0)
    world.advance(seconds)
    world.one_pass()


def test_a_training_without_a_step_for_three_medians_is_stopped_and_started_again() -> None:
    world, pod = in_training()
    beat(world, 5, 10)
    for _ in range(17):
        beat(world, 5, 10)
    assert world.status.attempts[-1].stopping is None, "170 s of 180"
    beat(world, 5, 10)
    assert world.status.attempts[-1].stopping == "Hung"
    assert "no step after step 5 for 180 s (median step 60.0 s)" in (world.status.message or "")
    world.start_operator()
    world.settle()
    leave(world, pod)
    assert (world.status.attempts[1].failure_class, world.status.attempts[1].charged) == (
        FailureClass.HUNG,
        1,
    )
    world.advance(11)
    world.one_pass()
    assert "a-train-2" in world.jobs()


def test_a_long_validation_a_jumping_clock_and_a_silent_port_are_no_hang() -> None:
    world, _ = in_training()
    beat(world, 5, 10)
    for _ in range(30):
        beat(world, 5, 10, phase="evaluating")
    beat(world, 5, 10)
    beat(world, 5, 7 * DAY)
    world.progress.answer = None
    for _ in range(30):
        world.advance(10)
        world.one_pass()
    assert world.status.attempts[-1].stopping is None
    assert world.status.attempts[-1].outcome == "Running"
