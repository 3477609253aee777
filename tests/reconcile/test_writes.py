# SPDX-License-Identifier: Apache-2.0
"""How often a job writes its status: once for what begins or ends, and not again for what only can be seen.

A status write costs the API server about 10 ms of CPU, more than any other request that a job makes.
"""

from collections.abc import Mapping
from typing import Any

import pytest
from support.samples import result_text, runtime_without_endpoint
from support.world.cluster import Dead
from support.world.training import in_training
from support.world.world import KEY, World
from tuneyard_api import reasons
from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.status import ConditionType, FineTuneJobStatus, State, WaitingFor
from tuneyard_operator.domain.decision import Decision, Delete, Note
from tuneyard_operator.domain.lasting import may_wait
from tuneyard_operator.reconcile.patience import PATIENCE


class PatientWorld(World):
    """An operator that lets reports wait, as in a cluster."""

    patience = PATIENCE


WITH_SERVER = {"a model that is served": None, "no server": runtime_without_endpoint()}


def live(world: World, *, seconds: float = 0.0) -> list[str]:
    """The life of a job, with so much time before and after each thing that its pods do; returns what each write said."""
    said: list[str] = []

    def settle() -> None:
        for _ in range(2):
            before = world.cluster.calls.count("patch status")
            world.settle()
            said.extend([world.status.message or ""] * (world.cluster.calls.count("patch status") - before))
            world.advance(seconds)
            if world.requeue is not None and world.requeue <= PATIENCE:
                world.due.add(KEY)

    settle()
    for stage in Stage:
        pod = world.make_pod(f"a-{stage}-1")
        settle()
        world.run_pod(pod)
        settle()
        world.end_pod(pod, message=result_text(stage, world.digest))
        settle()
    assert world.status.state is State.SUCCEEDED
    return said


@pytest.mark.parametrize("runtime", WITH_SERVER.values(), ids=WITH_SERVER.keys())
def test_a_plain_job_writes_its_status_four_times(runtime: Mapping[str, Any] | None) -> None:
    said = live(PatientWorld(runtime=runtime))
    assert [words.split(";")[0].split(" is published")[0] for words in said] == [
        "prepares model and data (attempt 1)",
        "waits for the training pod to be placed (attempt 1)",
        "publishes the adapter (attempt 1)",
        "adapter a",
    ]


def test_a_training_that_takes_longer_than_a_second_writes_that_it_runs() -> None:
    said = live(PatientWorld(), seconds=PATIENCE)
    assert len(said) == 5
    assert said[2] == "trains (attempt 1)"


def test_a_report_waits_for_a_second_at_most_and_also_through_a_restart() -> None:
    world = PatientWorld()
    world.settle()
    world.carry_out(Stage.PREPARE)
    world.run_pod(world.make_pod("a-train-1"))
    world.settle()
    assert "Trained" not in world.conditions()
    assert world.requeue == pytest.approx(PATIENCE)
    world.advance(0.6)
    world.one_pass()
    assert world.requeue == pytest.approx(PATIENCE - 0.6)
    world.start_operator()
    world.one_pass()
    assert "Trained" not in world.conditions(), "another process has waited for nothing yet"
    world.advance(PATIENCE)
    world.one_pass()
    assert world.conditions()["Trained"] == ("False", reasons.TRAINING)


def test_a_report_does_not_wait_for_a_clock_that_was_set_back() -> None:
    world = PatientWorld()
    world.settle()
    world.carry_out(Stage.PREPARE)
    world.run_pod(world.make_pod("a-train-1"))
    world.settle()
    world.advance(-3600)
    world.one_pass()
    assert world.conditions()["Trained"] == ("False", reasons.TRAINING)


def test_what_began_with_a_result_that_was_not_written_and_is_gone_is_ended_first() -> None:
    """The training was created, the operator killed before it could write so, and the pod of the preparation deleted."""
    world = World()
    world.settle()
    pod = world.make_pod("a-prepare-1")
    world.run_pod(pod)
    world.end_pod(pod, message=result_text(Stage.PREPARE, world.digest))
    world.deliver()
    world.cluster.die_before = len(world.cluster.calls) + 1
    with pytest.raises(Dead):
        world.one_pass()
    world.cluster.die_before = None
    assert world.jobs() == ["a-prepare-1", "a-train-1"]
    assert [each.job for each in world.status.attempts] == ["a-prepare-1"]
    training = world.make_pod("a-train-1")
    world.run_pod(training)
    for kind, name in (("Job", "a-prepare-1"), ("Pod", pod)):
        world.cluster.remove(kind, name)
    world.start_operator()
    world.settle()
    assert world.status.waiting_for is not None
    assert (world.status.waiting_for.name, world.status.waiting_for.reason) == (
        training,
        reasons.FORMER_POD_ENDING,
    )
    assert "deletionTimestamp" in world.cluster.objects["Job", "team", "a-train-1"]["metadata"]
    world.end_pod(training, exit_code=20, reason="Error")
    world.collect_garbage()
    world.settle()
    assert world.jobs() == ["a-prepare-2"]
    world.carry_out(Stage.PREPARE, 2)
    for stage in (Stage.TRAIN, Stage.PUBLISH):
        world.carry_out(stage)
    assert world.status.state is State.SUCCEEDED
    assert [(each.job, each.outcome) for each in world.status.attempts] == [
        ("a-prepare-1", "Failed"),
        *((f"a-{job}", "Succeeded") for job in ("prepare-2", "train-1", "publish-1")),
    ]


def test_a_base_model_that_is_not_served_is_known_before_the_training_begins() -> None:
    world = World()
    world.servers.models = ("another",)
    world.settle()
    world.carry_out(Stage.PREPARE)
    assert world.jobs() == ["a-prepare-1"]
    assert world.conditions()["DataReady"][0] == "True"


def running() -> FineTuneJobStatus:
    """The status of a job that trains."""
    world, _ = in_training()
    return world.status


def changed(status: FineTuneJobStatus, **fields: Any) -> FineTuneJobStatus:
    """The status with other fields of its last attempt."""
    last = status.attempts[-1].model_copy(update=fields)
    return status.model_copy(update={"attempts": (*status.attempts[:-1], last)})


def test_what_can_be_seen_again_may_wait() -> None:
    status = running()
    waiting = WaitingFor(kind="Pod", name="p", reason=reasons.UNSCHEDULABLE, message="m")
    for update in (
        {"message": "other words"},
        {"waiting_for": waiting, "state": State.WAITING},
        {"conditions": tuple(each for each in status.conditions if each.type is not ConditionType.SCHEDULED)},
    ):
        assert may_wait(status, Decision((), status.model_copy(update=update))), update
    assert may_wait(status, Decision((), changed(status, running_since="2026-01-01T12:00:30Z")))


def test_what_can_be_gone_does_not_wait() -> None:
    status = running()
    failed = {"outcome": "Failed", "failure_class": FailureClass.INTERRUPTED, "ended": "2026-01-01T12:00:30Z"}
    for fields in (
        {"stopping": "Hung"},
        failed,
        {"queued_since": "2026-01-01T12:00:30Z"},
        {"last_lines": "said"},
    ):
        assert not may_wait(status, Decision((), changed(status, **fields))), fields
        assert not may_wait(changed(status, **fields), Decision((), status)), fields
    progress = status.model_copy(update={"progress": None, "active_seconds": 7})
    assert not may_wait(status, Decision((), progress)), "a port that was asked is not asked again for 10 s"
    other = status.model_copy(update={"message": "other words"})
    assert not may_wait(status, Decision((Delete("Job", "a-train-1", "uid"),), other))
    assert not may_wait(status, Decision((), other, notes=(Note("Warning", "Why", "words"),)))
    first = FineTuneJobStatus()
    assert not may_wait(first, Decision((), first.model_copy(update={"message": "waits for its runtime"})))
