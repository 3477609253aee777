# SPDX-License-Identifier: Apache-2.0
"""deletionPolicy: what a job published goes with it, by its own pods alone, and nothing is held up for ever."""

from typing import Any

import pytest
from support.samples import job_spec, runtime_without_endpoint
from support.world.cluster import Dead
from support.world.deletion import UNPUBLISH, delete_finetunejob, unpublish
from support.world.training import fail, in_training
from support.world.world import World
from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.status import State
from tuneyard_operator.ports import ClusterError, RefusedError

DAY = 86_400
TERMINATING = RefusedError("NamespaceTerminating", "namespace team is being terminated")


def held(world: World) -> bool:
    body = world.cluster.objects[names.JOB_KIND, "team", "a"]
    return names.FINALIZER in body["metadata"].get("finalizers", ())


def is_gone(world: World) -> bool:
    return (names.JOB_KIND, "team", "a") not in world.cluster.objects


def told(world: World, reason: str) -> list[str]:
    return [event["note"] for event in world.cluster.events if event["reason"] == reason]


def in_publishing(policy: str = "Delete", **spec: Any) -> World:
    world = World(spec=job_spec(deletionPolicy=policy, **spec), runtime=runtime_without_endpoint())
    world.settle()
    for stage in (Stage.PREPARE, Stage.TRAIN):
        world.carry_out(stage)
    return world


def succeeded(policy: str = "Delete", **spec: Any) -> World:
    world = in_publishing(policy, **spec)
    world.carry_out(Stage.PUBLISH)
    assert world.status.state is State.SUCCEEDED, world.status.message
    return world


def delete(world: World) -> None:
    """It is deleted, and its Jobs, which nobody has said to be complete, are gone a look later."""
    delete_finetunejob(world)
    world.settle()
    if not is_gone(world):
        look_again(world)


def look_again(world: World, seconds: float = 2.0) -> None:
    world.advance(seconds)
    world.one_pass()
    world.settle()


# The finalizer


def test_by_default_there_is_no_finalizer_and_the_adapter_stays() -> None:
    world = succeeded(policy="Retain")
    assert "patch finalizers" not in world.cluster.calls
    delete(world)
    assert is_gone(world)
    assert world.registry == {"uid-a"}
    assert world.jobs() == []


def test_the_job_is_held_before_anything_can_be_published_and_not_earlier() -> None:
    world = World(spec=job_spec(deletionPolicy="Delete"), runtime=runtime_without_endpoint())
    world.settle()
    world.carry_out(Stage.PREPARE)
    assert not held(world)
    world.carry_out(Stage.TRAIN)
    assert held(world)
    calls = world.cluster.calls
    assert calls.index("patch finalizers") < calls.index("create Job a-publish-1")
    assert calls.count("patch finalizers") == 1


def test_a_job_that_never_published_goes_at_once() -> None:
    world, pod = in_training(deletionPolicy="Delete")
    fail(world, pod, FailureClass.NON_FINITE_LOSS)
    assert not held(world)
    delete(world)
    assert is_gone(world)


@pytest.mark.parametrize("is_cleaned", [False, True])
def test_the_policy_may_change_after_the_end(is_cleaned: bool) -> None:
    world = succeeded(policy="Retain")
    if is_cleaned:
        look_again(world, DAY + 1)
        assert world.status.cleaned is not None
    end = world.status
    for policy, wanted in (("Delete", True), ("Retain", False), ("Delete", True)):
        world.edit(deletionPolicy=policy)
        world.settle()
        assert held(world) is wanted
    world.start_operator()
    world.settle()
    assert (held(world), world.status) == (True, end)
    delete(world)
    unpublish(world)
    look_again(world)
    assert is_gone(world)
    assert world.registry == set()


def test_finalizers_of_others_stay() -> None:
    world = succeeded(policy="Retain")
    body = world.cluster.objects[names.JOB_KIND, "team", "a"]
    world.cluster.store(
        names.JOB_KIND, {**body, "metadata": {**body["metadata"], "finalizers": ["other.io/x"]}}
    )
    world.edit(deletionPolicy="Delete")
    world.settle()
    delete(world)
    unpublish(world)
    look_again(world)
    body = world.cluster.objects[names.JOB_KIND, "team", "a"]
    assert body["metadata"]["finalizers"] == ["other.io/x"]
    calls = len(world.cluster.calls)
    look_again(world)
    assert world.cluster.calls[calls:] == []


# The deletion


def test_what_was_published_is_removed_and_then_the_job_goes_and_nothing_is_left() -> None:
    world = succeeded()
    delete(world)
    assert not is_gone(world)
    job = world.cluster.objects["Job", "team", UNPUBLISH]
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["tuneyard-trainer", "unpublish", "--uid", "uid-a", "/registry/a"]
    unpublish(world)
    look_again(world)
    assert is_gone(world)
    assert world.registry == set()
    assert told(world, reasons.UNPUBLISHED) == ["claim adapters: /registry/a: removed"]
    assert {kind for kind, _, _ in world.cluster.objects} == {names.RUNTIME_KIND}


def test_a_deletion_in_the_foreground_takes_plan_and_workspace_first_and_it_continues_without_them() -> None:
    world = succeeded()
    delete_finetunejob(world)
    for kind in ("Job", "ConfigMap", "PersistentVolumeClaim"):
        for body in world.cluster.of_kind(kind):
            world.delete(kind, body["metadata"]["name"])
    world.settle()
    assert world.jobs() == [UNPUBLISH]
    volumes = world.cluster.objects["Job", "team", UNPUBLISH]["spec"]["template"]["spec"]["volumes"]
    assert [volume.get("persistentVolumeClaim") for volume in volumes] == [{"claimName": "adapters"}, None]
    assert "ownerReferences" not in world.cluster.objects["Job", "team", UNPUBLISH]["metadata"]
    unpublish(world)
    look_again(world)
    assert is_gone(world)


def test_a_pod_that_publishes_is_stopped_first_and_waited_for() -> None:
    world = in_publishing()
    pod = world.make_pod("a-publish-1")
    world.run_pod(pod)
    world.settle()
    delete(world)
    look_again(world)
    assert UNPUBLISH not in world.jobs()
    assert "deletionTimestamp" in world.cluster.objects["Pod", "team", pod]["metadata"]
    assert f"waits for {pod} to end" in told(world, reasons.UNPUBLISHING)[-1]
    # Its Job is gone before the pod is: a node that does not answer.
    body = world.cluster.objects["Job", "team", "a-publish-1"]
    world.cluster.remove("Job", "a-publish-1")
    look_again(world)
    assert UNPUBLISH not in world.jobs()
    world.cluster.objects["Job", "team", "a-publish-1"] = body
    world.end_pod(pod, exit_code=20, reason="Error")
    world.collect_garbage()
    look_again(world)
    assert UNPUBLISH in world.jobs()


def test_a_pod_that_publishes_and_that_no_status_tells_of_is_waited_for() -> None:
    """The creation of its Job was not answered, and somebody has deleted the Job since."""
    world = in_publishing()
    pod = world.make_pod("a-publish-1")
    world.run_pod(pod)
    body = world.cluster.objects[names.JOB_KIND, "team", "a"]
    attempts = [each for each in body["status"]["attempts"] if each["stage"] != Stage.PUBLISH]
    world.cluster.store(names.JOB_KIND, {**body, "status": {**body["status"], "attempts": attempts}})
    world.cluster.remove("Job", "a-publish-1")
    world.deliver()
    delete_finetunejob(world)
    world.settle()
    look_again(world)
    assert UNPUBLISH not in world.jobs()
    world.end_pod(pod, exit_code=20, reason="Error")
    world.collect_garbage()
    look_again(world)
    assert UNPUBLISH in world.jobs()


def carry_on(world: World) -> None:
    """All that must happen, whatever has: the controllers do their part and the operator looks again."""
    for _ in range(8):
        world.compare()
        world.settle()
        job = world.cluster.objects.get(("Job", "team", UNPUBLISH))
        if job is not None and not job.get("status"):
            unpublish(world)
        if is_gone(world):
            return
        look_again(world)


def test_killed_before_each_of_its_calls_it_continues() -> None:
    writes = 0
    for number in range(60):
        world = succeeded()
        delete_finetunejob(world)
        begun = len(world.cluster.calls)
        world.cluster.die_before = begun + number
        try:
            carry_on(world)
        except Dead:
            world.cluster.die_before = None
            world.start_operator()
            carry_on(world)
        else:
            break
        writes += 1
        assert is_gone(world), number
        assert world.registry == set(), number
        assert told(world, reasons.LEFT_BEHIND) == []
        assert {kind for kind, _, _ in world.cluster.objects} == {names.RUNTIME_KIND}, number
    assert writes > 8


def test_killed_before_each_write_on_the_way_to_publishing_it_is_held_in_time() -> None:
    for number in range(30):
        world = World(spec=job_spec(deletionPolicy="Delete"), runtime=runtime_without_endpoint())
        world.settle()
        world.carry_out(Stage.PREPARE)
        pod = world.make_pod("a-train-1")
        world.run_pod(pod)
        world.cluster.die_before = len(world.cluster.calls) + number
        try:
            world.carry_out_pod(pod, Stage.TRAIN)
        except Dead:
            assert held(world) or "a-publish-1" not in world.jobs()
            world.cluster.die_before = None
            world.start_operator()
            world.settle()
        assert held(world)
        assert "a-publish-1" in world.jobs()


def test_another_replica_at_work_stops_it_before_any_write() -> None:
    world = succeeded()
    delete_finetunejob(world)
    world.deliver()
    world.reconciler.may_write = lambda: False
    with pytest.raises(ClusterError):
        world.one_pass()
    assert told(world, reasons.UNPUBLISHING) == []
    assert UNPUBLISH not in world.jobs()


# Never for ever


def test_a_namespace_that_ends_is_not_held_up() -> None:
    world = succeeded()
    world.cluster.refuse = {"Job": TERMINATING, "Event": TERMINATING}
    delete(world)
    assert is_gone(world)


def test_a_quota_is_waited_for_and_not_for_ever() -> None:
    world = succeeded()
    world.cluster.refuse = {"Job": RefusedError("Forbidden", "exceeded quota: few")}
    delete(world)
    assert "can't remove /registry/a on claim adapters yet" in told(world, reasons.UNPUBLISHING)[-1]
    assert world.requeue == 10
    look_again(world, 880)
    assert not is_gone(world)
    look_again(world, 21)
    assert is_gone(world)
    [words] = told(world, reasons.LEFT_BEHIND)
    assert words.startswith("left behind /registry/a on claim adapters: after 15 minutes")


def test_a_quota_that_has_room_again_is_used() -> None:
    world = succeeded()
    world.cluster.refuse = {"Job": RefusedError("Forbidden", "exceeded quota: few")}
    delete(world)
    world.cluster.refuse.clear()
    look_again(world, 10)
    unpublish(world)
    look_again(world)
    assert is_gone(world)
    assert world.registry == set()


def test_a_job_that_fails_is_the_end_and_its_words_are_reported() -> None:
    world = succeeded()
    delete(world)
    unpublish(world, succeeds=False)
    look_again(world)
    assert is_gone(world)
    [words] = told(world, reasons.LEFT_BEHIND)
    assert "Job a-unpublish failed: Permission denied: '/registry/a'" in words


def test_a_claim_that_is_gone_holds_nothing() -> None:
    world = succeeded()
    world.cluster.claims_there.discard("adapters")
    world.registry.clear()
    delete(world)
    assert is_gone(world)
    assert UNPUBLISH not in world.jobs()


def test_a_person_who_does_not_want_to_wait_says_retain() -> None:
    world = succeeded()
    delete(world)
    world.edit(deletionPolicy="Retain")
    world.settle()
    assert is_gone(world)
    assert UNPUBLISH not in world.jobs()


def test_a_job_of_the_same_name_that_comes_after_is_not_touched() -> None:
    world = succeeded()
    delete(world)
    unpublish(world)
    stale = world.cluster.objects["Job", "team", UNPUBLISH]
    look_again(world)
    world.cluster.store("Job", stale)
    metadata = {"name": "a", "namespace": "team", "generation": 1, "uid": "uid-b"}
    spec = job_spec(deletionPolicy="Delete")
    world.cluster.store(names.JOB_KIND, {"metadata": metadata, "spec": spec})
    world.settle()
    for stage in Stage:
        world.carry_out(stage)
    assert world.registry == {"uid-b"}
    delete(world)
    look_again(world)
    look_again(world)
    assert (
        world.cluster.objects["Job", "team", UNPUBLISH]["metadata"]["annotations"][names.ANNOTATION_UID]
        == "uid-b"
    )
    unpublish(world)
    look_again(world)
    assert is_gone(world)
    assert world.registry == set()
