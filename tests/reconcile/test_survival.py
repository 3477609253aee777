# SPDX-License-Identifier: Apache-2.0
"""What a job does when clusters do what they do: memory, hangs, suspension, deadlines, lost nodes, clean-up."""

import pytest
from fake_world import World
from operator_samples import failure_text, job_spec, result_text, runtime_spec, runtime_without_endpoint
from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import ENV_MICRO_BATCH, FailureClass, Progress, Stage
from tuneyard_api.status import State
from tuneyard_operator.domain.observed import SeenEvent
from tuneyard_operator.ports import ClusterError

DAY = 86_400


def in_training(**spec: object) -> tuple[World, str]:
    """A job whose training pod runs."""
    world = World(spec=job_spec(**spec), runtime=runtime_without_endpoint())
    world.settle()
    world.carry_out(Stage.PREPARE)
    pod = world.make_pod("a-train-1")
    world.run_pod(pod)
    world.settle()
    world.one_pass()
    return world, pod


def fail(world: World, pod: str, kind: FailureClass, job: str = "a-train-1") -> None:
    message = failure_text(Stage.TRAIN, world.digest, kind, "words")
    world.end_pod(pod, exit_code=1, reason="Error", message=message)
    world.fail_job(job)
    world.settle()


def leave(world: World, pod: str) -> None:
    """The pod has written its checkpoint and ends."""
    world.end_pod(pod, exit_code=20, reason="Error")
    world.collect_garbage()
    world.settle()


def finish(world: World, attempt: int) -> None:
    world.carry_out(Stage.TRAIN, attempt)
    world.carry_out(Stage.PUBLISH)
    assert world.status.state is State.SUCCEEDED, world.status.message


def micro_batch_of(world: World, job: str) -> list[str]:
    [container] = world.cluster.objects["Job", "team", job]["spec"]["template"]["spec"]["containers"]
    return [each["value"] for each in container["env"] if each["name"] == ENV_MICRO_BATCH]


def test_out_of_memory_goes_on_with_half_the_micro_batch_until_it_is_1() -> None:
    world, pod = in_training(training={"globalBatchSize": 8, "microBatchSize": 4})
    for attempt, (size, accumulation) in enumerate([(2, 4), (1, 8)], start=2):
        fail(world, pod, FailureClass.OUT_OF_MEMORY, f"a-train-{attempt - 1}")
        assert micro_batch_of(world, f"a-train-{attempt}") == [str(size)]
        assert world.status.attempts[-1].micro_batch_size == size
        assert world.cluster.events[-1]["reason"] == reasons.SMALLER_BATCH
        assert f"{size} x accumulation {accumulation}" in world.cluster.events[-1]["message"]
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


def test_suspend_stops_at_a_checkpoint_and_resume_goes_on_from_there() -> None:
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
    world.endpoint.answer = type(world.endpoint.answer)(models=())
    for stage in Stage:
        world.carry_out(stage)
    assert world.status.state is State.SERVING
    world.edit(suspend=True)
    world.settle()
    assert world.status.state is State.SUSPENDED
    world.advance(DAY)
    asked = world.endpoint.asked
    world.one_pass()
    assert world.endpoint.asked == asked
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


def test_a_job_that_runs_too_long_ends_and_suspended_time_is_not_counted() -> None:
    world, pod = in_training(deadlines={"activeSeconds": 100})
    world.advance(60)
    world.edit(suspend=True)
    world.settle()
    leave(world, pod)
    assert world.status.active_seconds == 60
    world.advance(DAY)
    world.edit(suspend=False)
    world.settle()
    world.advance(DAY)
    world.one_pass()
    assert world.status.state is not State.FAILED, "a training that waits for its pod does not run"
    pod = world.make_pod("a-train-2")
    world.run_pod(pod)
    world.settle()
    world.one_pass()
    assert world.requeue is not None
    assert world.requeue <= 41
    world.advance(39)
    world.one_pass()
    assert world.status.state is State.TRAINING
    world.advance(1)
    world.one_pass()
    assert world.conditions()["Succeeded"] == ("False", reasons.ACTIVE_DEADLINE)
    assert world.status.attempts[-1].outcome == "Stopped"
    leave(world, pod)
    assert "a-train-2" not in world.jobs()


def test_a_job_that_waits_too_long_ends_and_says_for_what() -> None:
    world = World(spec=job_spec(deadlines={"pendingSeconds": 100}), runtime=runtime_spec())
    world.cluster.claims_there.clear()
    world.settle()
    world.advance(99)
    world.one_pass()
    assert world.requeue is not None
    assert world.requeue <= 2
    world.advance(1)
    world.one_pass()
    assert world.conditions()["Succeeded"] == ("False", reasons.PENDING_DEADLINE)
    assert "PersistentVolumeClaim adapters, data, models does not exist" in (world.status.message or "")


def test_a_pod_that_is_never_placed_ends_the_job_and_goes_with_it() -> None:
    world = World(spec=job_spec(deadlines={"pendingSeconds": 100}))
    world.settle()
    world.carry_out(Stage.PREPARE)
    world.advance(DAY)
    world.make_pod("a-train-1")
    world.cluster.objects["Job", "team", "a-train-1"]["status"] = {"active": 1}
    world.deliver()
    world.one_pass()
    assert world.conditions()["Succeeded"] == ("False", reasons.PENDING_DEADLINE)
    assert "a-train-1" not in world.jobs()
    assert [pod["metadata"]["name"] for pod in world.cluster.of_kind("Pod")] == ["a-prepare-1-x"]


def test_a_deadline_does_not_take_what_has_just_ended_well() -> None:
    world, pod = in_training(deadlines={"activeSeconds": 100})
    world.advance(200)
    world.end_pod(pod, message=result_text(Stage.TRAIN, world.digest))
    world.settle()
    world.carry_out(Stage.PUBLISH)
    assert world.status.state is State.SUCCEEDED


def test_nothing_is_started_beside_a_pod_of_a_lost_node_which_is_named() -> None:
    world, pod = in_training()
    body = world.cluster.objects["Pod", "team", pod]
    world.cluster.store("Pod", {**body, "spec": {"nodeName": "gpu-7"}})
    world.delete("Pod", pod)
    world.settle()
    world.advance(151)
    world.one_pass()
    assert world.status.waiting_for is not None
    assert world.status.waiting_for.reason == reasons.NODE_LOST
    assert "node gpu-7 does not answer" in world.status.waiting_for.message
    assert world.jobs() == ["a-prepare-1", "a-train-1"]
    world.cluster.remove("Pod", pod)
    world.fail_job("a-train-1")
    world.settle()
    assert "a-train-2" in world.jobs()
    assert world.status.attempts[1].failure_class is FailureClass.INTERRUPTED


def test_a_pod_that_the_watch_has_not_shown_holds_the_next_attempt_back() -> None:
    world, _ = in_training()
    world.told.clear()
    late = world.make_pod("a-train-1", suffix="late")
    world.run_pod(late)
    world.told.clear()
    world.cluster.remove("Pod", "a-train-1-x")
    world.cluster.remove("Job", "a-train-1")
    world.settle()
    assert "a-train-2" not in world.jobs()
    assert world.conditions()["Trained"] == ("False", reasons.FORMER_POD_ENDING)
    world.cluster.remove("Pod", late)
    world.one_pass()
    assert "a-train-2" in world.jobs()


def test_a_pod_that_vanished_is_explained_by_what_kubernetes_warned_of() -> None:
    world, pod = in_training(retry={"maxInterruptions": 0})
    warn = [
        SeenEvent("Pod", pod, "NodeNotReady", "Node is not ready", world.moment),
        SeenEvent("Pod", "b-train-1-x", "Unrelated", "of another job", world.moment),
    ]
    world.cluster.seen_events = tuple(warn)
    world.cluster.remove("Pod", pod)
    world.fail_job("a-train-1")
    world.settle()
    assert "its result was read (NodeNotReady: Node is not ready)" in (world.status.message or "")
    assert "another job" not in (world.status.message or "")


@pytest.mark.parametrize(("good", "seconds"), [(True, DAY), (False, 7 * DAY)])
def test_children_and_workspace_go_after_their_time_and_the_job_stays(good: bool, seconds: int) -> None:
    world, pod = in_training()
    if good:
        world.end_pod(pod, message=result_text(Stage.TRAIN, world.digest))
        world.settle()
        world.carry_out(Stage.PUBLISH)
    else:
        fail(world, pod, FailureClass.NON_FINITE_LOSS)
    end = world.status
    foreign = {"metadata": {"name": "a-plan-of-mine", "namespace": "team", "labels": {names.LABEL_JOB: "a"}}}
    world.cluster.store("Job", {**foreign, "spec": {"completions": 1}})
    world.settle()
    world.advance(seconds - 10)
    world.start_operator()
    world.settle()
    calls = len(world.cluster.calls)
    world.one_pass()
    assert world.cluster.calls[calls:] == [], "nobody is asked before it is time"
    assert world.requeue == pytest.approx(10, abs=1)
    world.advance(11)
    world.one_pass()
    assert world.jobs() == ["a-plan-of-mine"]
    assert [world.cluster.of_kind(kind) for kind in ("ConfigMap", "PersistentVolumeClaim", "Pod")] == [
        [],
        [],
        [],
    ]
    assert world.status.cleaned is not None
    assert world.status.model_copy(update={"cleaned": None}) == end
    calls = len(world.cluster.calls)
    world.start_operator()
    world.settle()
    world.one_pass()
    assert [call for call in world.cluster.calls[calls:] if not call.startswith("list")] == []


def test_a_time_to_live_can_be_changed_after_the_end() -> None:
    world, pod = in_training()
    fail(world, pod, FailureClass.NON_FINITE_LOSS)
    world.edit(ttl={"afterFailureSeconds": 0})
    world.settle()
    assert world.jobs() == []


def test_a_claim_of_somebody_else_is_never_cleaned_up() -> None:
    world = World(spec=job_spec(method="sft", ttl={"afterFailureSeconds": 0}))
    claim = {"metadata": {"name": "a-workspace", "namespace": "team"}, "spec": {}}
    world.cluster.store("PersistentVolumeClaim", claim)
    world.settle()
    assert world.status.cleaned is not None
    assert len(world.cluster.of_kind("PersistentVolumeClaim")) == 1


def test_a_job_whose_creation_was_not_answered_does_not_outlive_the_end() -> None:
    world, pod = in_training(deadlines={"activeSeconds": 100})
    stray = world.cluster.objects["Job", "team", "a-train-1"]
    world.advance(101)
    world.one_pass()
    leave(world, pod)
    assert world.status.state is State.FAILED
    labels = {**stray["metadata"]["labels"], names.LABEL_ATTEMPT: "2"}
    metadata = {**stray["metadata"], "name": "a-train-2", "uid": "late", "labels": labels}
    metadata.pop("deletionTimestamp", None)
    world.cluster.store("Job", {**stray, "metadata": metadata, "status": {}})
    world.settle()
    assert "a-train-2" not in world.jobs()


def test_a_deletion_that_is_not_answered_is_made_again() -> None:
    world, pod = in_training()
    world.edit(suspend=True)
    world.deliver()
    world.one_pass()
    world.cluster.down = True
    with pytest.raises(ClusterError):
        world.one_pass()
    world.cluster.down = False
    world.settle()
    leave(world, pod)
    assert world.status.state is State.SUSPENDED
