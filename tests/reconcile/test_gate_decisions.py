# SPDX-License-Identifier: Apache-2.0
"""A gate that is not met: the job fails with a reason of its own, keeps what was measured, and starts no publish pod."""

from support.samples import TRAIN_FACTS, failure_text, job_spec, result_text
from support.world.world import World
from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.status import State

MISSED = "nothing is published, as evaluation.gate is not met: rougeL is 0.5, 0.1 below the minimum of 0.6"


def job_with_gate(**gate: object) -> World:
    return World(spec=job_spec(evaluation={"gate": gate}))


def train(world: World, facts: dict[str, object] = TRAIN_FACTS) -> None:
    world.settle()
    world.carry_out(Stage.PREPARE)
    pod = world.make_pod("a-train-1")
    world.settle()
    world.end_pod(pod, message=result_text(Stage.TRAIN, world.digest, facts=facts))
    world.settle()


def test_a_gate_that_is_met_lets_the_job_publish() -> None:
    world = job_with_gate(minimum={"rougeL": 0.5}, mustNotRegress={"base": {"loss": 0}})
    train(world)
    assert world.jobs() == ["a-prepare-1", "a-train-1", "a-publish-1"]
    world.carry_out(Stage.PUBLISH)
    assert world.status.state is State.SUCCEEDED


def test_a_gate_that_is_missed_ends_the_job_before_any_pod_could_publish() -> None:
    world = job_with_gate(minimum={"rougeL": 0.6})
    train(world)
    status, conditions = world.status, world.conditions()
    assert world.jobs() == ["a-prepare-1", "a-train-1"]
    assert status.state is State.FAILED
    assert (conditions["Evaluated"][0], conditions["Published"]) == ("True", ("False", "GateFailed"))
    assert conditions["Succeeded"] == ("False", "GateFailed")
    assert status.message == MISSED
    assert status.result is not None
    assert (status.result.adapter, status.result.metrics is not None) == (None, True)
    assert world.servers.asked == []


def test_a_runtime_that_does_not_evaluate_passes_no_gate() -> None:
    world = job_with_gate(maximum={"loss": 100})
    train(world, {name: value for name, value in TRAIN_FACTS.items() if name != "evaluation"})
    assert world.conditions()["Succeeded"] == ("False", "GateFailed")
    assert "loss was not measured" in str(world.status.message)


def test_what_the_publish_pod_says_of_the_served_version_is_final() -> None:
    dataset = {
        "training": {"pvc": {"claimName": "data", "path": "train.jsonl"}},
        "test": {"pvc": {"claimName": "data", "path": "test.jsonl"}},
    }
    gate = {"mustNotRegress": {"served": {"rougeL": 0}}}
    world = World(spec=job_spec(dataset=dataset, evaluation={"gate": gate}, publish={"replace": True}))
    train(world)
    pod = world.make_pod("a-publish-1")
    world.settle()
    said = failure_text(Stage.PUBLISH, world.digest, FailureClass.GATE_FAILED, MISSED)
    world.end_pod(pod, exit_code=22, message=said)
    world.fail_job("a-publish-1")
    world.settle()
    assert world.conditions()["Succeeded"] == ("False", "GateFailed")
    assert world.jobs() == ["a-prepare-1", "a-train-1", "a-publish-1"]
    assert MISSED in str(world.status.message)
