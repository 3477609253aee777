# SPDX-License-Identifier: Apache-2.0
"""The step from Published to Served: what the operator asks a server and when, and how a job ends without an answer."""

import pytest
from support.samples import job_spec
from support.world.world import World
from tuneyard_api import reasons
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import State
from tuneyard_operator.domain.observed import ReplicaAnswer

NOT_YET = "does not have a yet"


@pytest.mark.parametrize(
    ("replicas", "reason", "message"),
    [
        (
            (ReplicaAnswer("10.0.0.1:8000", problem=NOT_YET),),
            reasons.SERVE_TIMEOUT,
            "after 30 s http://nim.example:8000 does not serve a: the server does not have a yet",
        ),
        (
            (ReplicaAnswer("10.0.0.1:8000", completed=True), ReplicaAnswer("10.0.0.2:8000", problem=NOT_YET)),
            reasons.SERVE_TIMEOUT,
            "after 30 s 1 of 2 replicas of http://nim.example:8000 does not serve a: 10.0.0.2:8000 does not have a yet",
        ),
        (
            (
                ReplicaAnswer("10.0.0.1:8000", problem=NOT_YET),
                ReplicaAnswer("10.0.0.2:8000", problem="has refused this version: unlike", has_refused=True),
            ),
            reasons.TRIAL_FAILED,
            "after 30 s 2 of 2 replicas of http://nim.example:8000 do not serve a: 10.0.0.2:8000 has refused this version: unlike",
        ),
        ((), reasons.ENDPOINT_UNREACHABLE, "after 30 s http://nim.example:8000 has no ready replica"),
        (
            (ReplicaAnswer("10.0.0.1:8000", is_reached=False, problem="TimeoutError"),),
            reasons.ENDPOINT_UNREACHABLE,
            "after 30 s http://nim.example:8000 does not answer: TimeoutError",
        ),
    ],
)
def test_serving_waits_for_each_replica_and_gives_up_with_what_is_missing(
    replicas: tuple[ReplicaAnswer, ...], reason: str, message: str
) -> None:
    world = World(spec=job_spec(serve={"timeoutSeconds": 30}))
    world.servers.replicas = replicas
    world.settle()
    for stage in Stage:
        world.carry_out(stage)
    assert world.status.state is State.SERVING
    assert world.conditions()["Served"] == ("False", reasons.WAITING_FOR_ENDPOINT)
    assert world.cluster.events == [], "a server that has not looked yet is nothing to tell people"
    world.advance(31)
    world.one_pass()
    world.settle()
    assert world.status.state is State.FAILED
    assert world.conditions()["Succeeded"] == ("False", reason)
    assert world.status.message == message
    assert world.status.result is not None
    assert world.status.result.adapter is not None, "it is published all the same"


def test_the_server_is_asked_for_the_very_version_and_the_time_until_it_answers_is_kept() -> None:
    world = World()
    world.servers.replicas = (ReplicaAnswer("10.0.0.1:8000", problem=NOT_YET),)
    world.settle()
    for stage in Stage:
        world.carry_out(stage)
    world.advance(4)
    world.servers.replicas = (ReplicaAnswer("10.0.0.1:8000", completed=True),)
    world.one_pass()
    world.settle()
    assert {(adapter.name, adapter.digest) for adapter in world.servers.asked} == {("a", "adapter")}
    assert world.status.state is State.SUCCEEDED
    assert world.status.result is not None
    assert world.status.result.served_after_seconds is not None
    assert 4 <= world.status.result.served_after_seconds < 10


def test_a_server_that_lacks_its_base_model_ends_the_job_before_a_gpu_is_asked_for() -> None:
    world = World()
    world.servers.models = ("another",)
    world.settle()
    world.carry_out(Stage.PREPARE)
    assert world.jobs() == ["a-prepare-1"]
    assert world.conditions()["Succeeded"] == ("False", reasons.BASE_NOT_SERVED)
    assert world.status.message == (
        "http://nim.example:8000 lists another and not its base model base, so it could not load the adapter; try the"
        " runtime's servedModels, or serve.disabled: true in a new job"
    )


def test_a_server_that_does_not_answer_before_the_training_may_still_come() -> None:
    world = World()
    world.servers.models = None
    world.settle()
    for stage in Stage:
        world.carry_out(stage)
    assert world.status.state is State.SUCCEEDED


@pytest.mark.parametrize("replace", [False, True])
def test_the_server_learns_whether_the_name_may_have_meant_another_version(replace: bool) -> None:
    world = World(spec=job_spec(publish={"replace": replace}))
    world.settle()
    for stage in Stage:
        world.carry_out(stage)
    assert {adapter.replaces for adapter in world.servers.asked} == {replace}


def test_a_job_that_replaces_waits_while_a_replica_answers_with_the_version_before() -> None:
    world = World(spec=job_spec(publish={"replace": True}))
    before = ReplicaAnswer("10.0.0.2:8000", problem="answers with another version (/adapters/.store/a/0ld)")
    world.servers.replicas = (ReplicaAnswer("10.0.0.1:8000", completed=True), before)
    world.settle()
    for stage in Stage:
        world.carry_out(stage)
    assert world.status.state is State.SERVING
    assert world.conditions()["Served"] == ("False", reasons.WAITING_FOR_ENDPOINT)
    world.servers.replicas = (ReplicaAnswer("10.0.0.1:8000", completed=True),)
    world.advance(4)
    world.one_pass()
    world.settle()
    assert world.status.state is State.SUCCEEDED
