# SPDX-License-Identifier: Apache-2.0
"""How a job ends that takes too long or whose node is lost, and what is left of it after its end."""

import pytest
from support.samples import job_spec, result_text, runtime_spec
from support.world.training import fail, in_training, leave
from support.world.world import World
from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.status import State
from tuneyard_operator.domain.observed import SeenEvent
from tuneyard_operator.ports import ClusterError

DAY = 86_400


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
    world.told.clear()
    world.one_pass()
    world.settle()
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
    world.cluster.store("Job", {**foreign, "spec": {"parallelism": 2}})
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
