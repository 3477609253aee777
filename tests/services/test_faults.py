# SPDX-License-Identifier: Apache-2.0
"""NeMo services under faults: whatever fails, each training is started exactly once, and none is lost."""

import random
from collections.abc import Callable

import pytest
from support.nemo.double import TOKEN
from support.nemo.wire import Fault
from support.samples import job_spec
from support.world.cluster import Dead
from support.world.deletion import delete_finetunejob
from support.world.services import ServiceWorld
from tuneyard_api import names, reasons
from tuneyard_api.status import State
from tuneyard_operator.ports import ClusterError

STEPS = (
    ("GET", "/v1/customization/jobs$"),
    ("GET", "/v1/namespaces/"),
    ("POST", "/v1/namespaces$"),
    ("GET", "/v1/datasets/"),
    ("POST", "/v1/datasets$"),
    ("GET", "/v1/customization/targets/"),
    ("GET", "/v1/customization/configs/"),
    ("POST", "/v1/customization/configs$"),
    ("POST", "/v1/customization/jobs$"),
    ("GET", "/v1/customization/jobs/cust-"),
    ("GET", "/v1/models/"),
    ("GET", "/v1/hf/api/models/"),
)
"""Every request of a job's life, in order."""


def end_of(world: ServiceWorld) -> None:
    """The job ends, by whatever goes wrong on the way there."""
    for _ in range(200):
        world.advance(2)
        attempt(world, world.one_pass)
        attempt(world, world.settle)
        if world.status.state in {State.SUCCEEDED, State.FAILED}:
            return
    raise AssertionError(world.status.message)


def attempt(world: ServiceWorld, work: Callable[[], object]) -> None:
    """Passes as the loop runs them: an error of the API server is met by another pass, death by another process."""
    try:
        work()
    except ClusterError:
        return
    except Dead:
        world.cluster.die_before = None
        world.start_operator()


def started_once(world: ServiceWorld) -> None:
    assert world.status.state is State.SUCCEEDED, world.status.message
    assert world.states == ["completed"]
    assert len(world.nemo.customizer.started) == 1


@pytest.mark.parametrize("answer", [500, 503, 429, 408, "cut", "lost"])
@pytest.mark.parametrize("step", STEPS)
def test_a_service_that_is_down_at_any_step_is_waited_for(step: tuple[str, str], answer: int | str) -> None:
    world = ServiceWorld()
    fault = Fault(*step, answer, times=2)  # type: ignore[arg-type]
    world.nemo.faults.append(fault)
    world.prepare()
    end_of(world)
    assert fault.times == 0 or answer == "lost"
    started_once(world)


@pytest.mark.parametrize("step", STEPS)
def test_wrong_credentials_are_waited_for_and_named(step: tuple[str, str]) -> None:
    world = ServiceWorld()
    fault = Fault(*step, 401, times=10_000)
    world.nemo.faults.append(fault)
    world.prepare()
    world.go_on(40)
    status = world.status
    assert status.waiting_for is not None
    assert status.waiting_for.reason == reasons.SERVICE_DENIED
    assert "answered 401" in (status.message or "")
    world.nemo.faults.clear()
    end_of(world)
    started_once(world)


def test_no_token_is_ever_repeated(caplog: pytest.LogCaptureFixture) -> None:
    world = ServiceWorld()
    world.nemo.faults.append(Fault("GET", "/v1/customization/jobs$", 403, times=3, headers={"X": TOKEN}))
    world.nemo.token = "another"
    world.prepare()
    world.go_on(20)
    said = caplog.text + str(world.cluster.objects) + str(world.cluster.events)
    assert "answered 40" in said
    assert TOKEN not in said


def test_retry_after_is_kept() -> None:
    world = ServiceWorld()
    world.nemo.faults.append(Fault("POST", "/v1/customization/jobs$", 429, headers={"Retry-After": "77"}))
    world.prepare()
    assert world.requeue == 77.0


@pytest.mark.parametrize("status", [400, 422])
def test_what_the_service_refuses_for_good_fails_the_job_in_its_words(status: int) -> None:
    world = ServiceWorld()
    world.nemo.faults.append(Fault("POST", "/v1/customization/jobs$", status))
    world.prepare()
    assert world.conditions()["Succeeded"] == ("False", reasons.SERVICE_REFUSED)
    assert "a fault that was switched on" in (world.status.message or "")


def test_an_operator_killed_before_each_of_its_writes_finds_what_it_has_started() -> None:
    calls = 0
    while True:
        world = ServiceWorld()
        world.prepare_pod()
        world.cluster.die_before = len(world.cluster.calls) + calls
        attempt(world, world.settle)
        is_dead = world.cluster.die_before is None
        end_of(world)
        started_once(world)
        calls += 1
        if not is_dead:
            assert calls > 3
            return


@pytest.mark.parametrize("is_down", [False, True])
def test_killed_between_created_there_and_written_here_and_suspended_it_is_cancelled_there(
    is_down: bool,
) -> None:
    found = 0
    for calls in range(8):
        world = ServiceWorld()
        world.prepare_pod()
        world.cluster.die_before = len(world.cluster.calls) + calls
        attempt(world, world.settle)
        world.cluster.die_before = None
        written = [each.job for each in world.status.attempts]
        found += bool(world.customizations) and world.customizations[0]["name"] not in written
        world.nemo.faults += [Fault("*", "/v1/", 503, times=2)] if is_down else []
        world.edit(suspend=True)
        world.settle()
        for _ in range(20):
            world.advance(2)
            if world.requeue is not None:
                world.one_pass()
            world.settle()
        assert world.states in ([], ["cancelled"])
        assert world.status.state is State.SUSPENDED
    assert found, "no death fell between the two"


def test_a_customization_deleted_in_the_service_is_started_again() -> None:
    world = ServiceWorld()
    world.prepare()
    world.go_on(6)
    world.nemo.customizer.jobs.clear()
    end_of(world)
    assert world.status.state is State.SUCCEEDED, world.status.message
    assert world.nemo.customizer.started == [
        names.customization_name("a", "uid-a", number) for number in (1, 2)
    ]
    assert world.status.attempts[1].failure_class == "Interrupted"


def test_of_two_customizations_of_one_name_the_younger_is_cancelled() -> None:
    world = ServiceWorld()
    world.prepare_pod()
    world.settle()
    (first,) = world.customizations
    world.nemo.customizer.jobs["cust-zzz"] = {**first, "id": "cust-zzz"}
    world.start_operator()
    end_of(world)
    assert world.states == ["completed", "cancelled"]
    assert world.status.state is State.SUCCEEDED, world.status.message


def test_a_job_of_the_same_name_applied_again_gets_a_customization_of_its_own() -> None:
    world = ServiceWorld()
    world.prepare()
    end_of(world)
    delete_finetunejob(world)
    world.settle()
    metadata = {"name": "a", "namespace": "team", "generation": 1, "uid": "uid-b"}
    world.cluster.store(names.JOB_KIND, {"metadata": metadata, "spec": job_spec()})
    world.settle()
    world.prepare()
    end_of(world)
    assert world.states == ["completed", "completed"]
    assert len({job["output_model"] for job in world.customizations}) == 2
    assert len(set(world.nemo.customizer.started)) == 2


def test_an_answer_of_another_form_is_waited_out() -> None:
    world = ServiceWorld()
    world.prepare()
    world.nemo.faults.append(Fault("GET", "/v1/customization/jobs/", 200, times=3))
    world.go_on(4)
    assert world.status.waiting_for is not None
    assert world.status.waiting_for.reason == reasons.SERVICE_UNEXPECTED


def by_chance(seed: int) -> None:
    """One job whose services and operator fail at times that the seed tells."""
    chance = random.Random(seed)
    world = ServiceWorld()
    for _ in range(chance.randrange(1, 5)):
        step = chance.choice(STEPS)
        answer = chance.choice([401, 429, 500, 503, "cut", "lost"])
        world.nemo.faults.append(Fault(*step, answer, times=chance.randrange(1, 4)))  # type: ignore[arg-type]
    world.prepare_pod()
    is_deleted = chance.random() < 0.2
    for _ in range(chance.randrange(0, 4)):
        world.cluster.die_before = len(world.cluster.calls) + chance.randrange(0, 6)
        world.advance(2)
        attempt(world, world.one_pass)
        attempt(world, world.settle)
        world.cluster.die_before = None
        if is_deleted and world.customizations:
            world.nemo.customizer.jobs.clear()
            is_deleted = False
            world.nemo.customizer.started.clear()
    end_of(world)
    started_once(world)


@pytest.mark.parametrize("seed", range(20))
def test_a_job_under_faults_is_started_once_and_not_lost(seed: int) -> None:
    by_chance(seed)


@pytest.mark.long
def test_two_hundred_jobs_under_faults_are_each_started_once_and_none_is_lost() -> None:
    for seed in range(1000, 1200):
        by_chance(seed)
