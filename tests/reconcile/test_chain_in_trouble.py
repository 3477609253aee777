# SPDX-License-Identifier: Apache-2.0
"""The chain when something is in the way: failed attempts, things that are missing, refused or not ours."""

from typing import Any

import pytest
from support.samples import (
    failure_text,
    job_spec,
    result_text,
    runtime_spec,
)
from support.world.world import World
from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.status import State
from tuneyard_operator.ports import RefusedError


@pytest.mark.parametrize("kind", [FailureClass.INTERRUPTED, FailureClass.UPSTREAM])
def test_a_retriable_failure_starts_the_next_attempt(kind: FailureClass) -> None:
    world = World()
    world.settle()
    pod = world.make_pod("a-prepare-1")
    world.run_pod(pod)
    world.end_pod(
        pod,
        exit_code=20,
        reason="Error",
        message=failure_text(Stage.PREPARE, world.digest, kind, "hub is down"),
    )
    world.settle()
    assert world.jobs() == ["a-prepare-1"], "the Job has not failed yet, and it is the word on failure"
    world.fail_job("a-prepare-1")
    world.settle()
    if kind is FailureClass.UPSTREAM:
        assert world.conditions()["DataReady"] == ("False", reasons.BACKING_OFF)
        world.advance(10)
        world.one_pass()
        world.settle()
    assert world.jobs() == ["a-prepare-1", "a-prepare-2"]
    first, second = world.status.attempts
    assert (first.outcome, first.failure_class, first.message) == ("Failed", kind, "hub is down")
    assert (second.number, second.outcome) == (2, "Running")
    assert world.cluster.events[-1]["reason"] == reasons.RETRYING
    world.carry_out(Stage.PREPARE, attempt=2)
    assert world.conditions()["DataReady"][0] == "True"


def test_attempts_end_where_the_job_says() -> None:
    world = World(spec=job_spec(retry={"maxAttempts": 2}))
    world.settle()
    for attempt in (1, 2):
        pod = world.make_pod(f"a-prepare-{attempt}")
        world.end_pod(pod, exit_code=19, reason="Error")
        world.fail_job(f"a-prepare-{attempt}")
        world.settle()
        world.advance(10)
        world.one_pass()
        world.settle()
    assert world.jobs() == ["a-prepare-1", "a-prepare-2"]
    assert world.conditions()["Succeeded"] == ("False", reasons.ATTEMPTS_EXHAUSTED)
    assert world.conditions()["DataReady"] == ("False", reasons.ATTEMPTS_EXHAUSTED)
    assert world.status.message is not None
    assert world.status.message.startswith(
        "gave up after 2 attempts of prepare; the last: prepare attempt 2, pod a-prepare-2-x: exit code 19"
    )


def test_a_failure_that_would_repeat_ends_the_job_with_the_stage_s_own_sentence() -> None:
    world = World()
    world.settle()
    pod = world.make_pod("a-prepare-1")
    words = "train.jsonl:7:1 completion: missing; try a template"
    world.end_pod(
        pod, exit_code=10, message=failure_text(Stage.PREPARE, world.digest, FailureClass.BAD_INPUT, words)
    )
    world.fail_job("a-prepare-1")
    world.settle()
    assert world.jobs() == ["a-prepare-1"]
    assert world.status.state is State.FAILED
    assert world.status.message == words
    assert world.conditions()["DataReady"] == ("False", "BadInput")
    assert world.conditions()["Succeeded"] == ("False", "BadInput")
    assert [event["reason"] for event in world.cluster.events] == ["BadInput"]


def test_the_next_attempt_waits_until_the_former_pod_is_gone() -> None:
    world = World()
    world.settle()
    world.carry_out(Stage.PREPARE)
    pod = world.make_pod("a-train-1")
    world.run_pod(pod)
    world.settle()
    world.cluster.remove("Job", "a-train-1")
    world.settle()
    assert "a-train-2" not in world.jobs()
    assert world.status.waiting_for is not None
    assert (world.status.waiting_for.name, world.status.waiting_for.reason) == (
        pod,
        reasons.FORMER_POD_ENDING,
    )
    assert world.status.state is State.WAITING
    world.cluster.remove("Pod", pod)
    world.settle()
    assert "a-train-2" in world.jobs()
    assert world.conditions()["Scheduled"] == ("False", reasons.WAITING_FOR_POD)


def test_missing_claims_are_waited_for_by_name_and_found_when_they_come() -> None:
    world = World()
    world.cluster.claims_there -= {"data", "adapters"}
    world.settle()
    assert world.jobs() == []
    assert world.conditions() == {"Accepted": ("False", reasons.CLAIM_MISSING)}
    assert world.status.message == "PersistentVolumeClaim adapters, data does not exist in namespace team"
    assert world.requeue is not None
    world.cluster.claims_there |= {"data", "adapters"}
    world.one_pass()
    world.settle()
    assert world.jobs() == ["a-prepare-1"]
    assert world.conditions()["Accepted"] == ("True", reasons.ACCEPTED)
    assert world.status.waiting_for is None


def test_a_runtime_that_comes_later_starts_the_job() -> None:
    world = World(spec=job_spec(runtime={"name": "own"}))
    world.settle()
    assert world.conditions() == {"Accepted": ("False", reasons.RUNTIME_MISSING)}
    assert world.status.state is State.PENDING
    world.cluster.store(names.RUNTIME_KIND, {"metadata": {"name": "own"}, "spec": runtime_spec()})
    world.settle()
    assert world.jobs() == ["a-prepare-1"]


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        (job_spec(method="sft"), reasons.METHOD_NOT_IN_RUNTIME, "spec.method: runtime hf has lora (got sft)"),
        (
            job_spec(colour="red"),
            reasons.INVALID_SPEC,
            "spec.colour: Extra inputs are not permitted (got 'red')",
        ),
    ],
)
def test_what_can_never_run_ends_at_once(spec: dict[str, Any], reason: str, words: str) -> None:
    world = World(spec=spec)
    world.settle()
    assert world.jobs() == []
    assert world.conditions() == {"Accepted": ("False", reason), "Succeeded": ("False", reason)}
    assert world.status.message is not None
    assert words in world.status.message
    assert world.requeue == pytest.approx(7 * 86_400, abs=1), "nothing but to clean up"


def test_a_quota_that_refuses_the_training_job_keeps_what_prepare_found() -> None:
    world = World()
    world.settle()
    refusal = 'jobs.batch "a-train-1" is forbidden: exceeded quota: few, requested: count/jobs.batch=1, used: 3, limited: 3'
    world.cluster.refuse["Job"] = RefusedError("Forbidden", refusal)
    world.carry_out(Stage.PREPARE)
    assert world.conditions()["DataReady"][0] == "True"
    assert world.conditions()["Scheduled"] == ("False", reasons.QUOTA_EXCEEDED)
    assert [attempt.job for attempt in world.status.attempts] == ["a-prepare-1"]
    waiting = world.status.waiting_for
    assert waiting is not None
    assert (waiting.kind, waiting.name) == ("ResourceQuota", "few")
    assert refusal in waiting.message
    world.cluster.refuse.clear()
    world.one_pass()
    world.settle()
    assert world.jobs() == ["a-prepare-1", "a-train-1"]
    assert world.status.waiting_for is None


def test_an_object_that_the_api_server_calls_invalid_ends_the_job() -> None:
    world = World()
    world.cluster.refuse["Job"] = RefusedError("Invalid", "spec.template: Invalid value")
    world.settle()
    assert world.conditions()["Planned"][0] == "True"
    assert world.conditions()["Succeeded"] == ("False", reasons.OBJECT_INVALID)


def test_a_foreign_object_of_the_same_name_is_a_conflict_and_is_left_alone() -> None:
    world = World()
    foreign = {
        "kind": "Job",
        "metadata": {"name": "a-prepare-1", "namespace": "team", "labels": {}},
        "spec": {},
    }
    world.cluster.store("Job", foreign)
    world.settle()
    assert world.conditions()["DataReady"] == ("False", reasons.NAME_CONFLICT)
    assert world.status.message is not None
    assert "belongs to nobody" in world.status.message
    assert world.status.attempts == ()
    world.cluster.remove("Job", "a-prepare-1")
    world.one_pass()
    world.settle()
    assert world.status.attempts[0].job == "a-prepare-1"


def test_objects_of_an_older_job_of_the_same_name_are_not_taken_over() -> None:
    world = World()
    world.settle()
    world.carry_out(Stage.PREPARE)
    world.cluster.remove(names.JOB_KIND, "a")
    world.cluster.store(
        names.JOB_KIND, {"metadata": {"name": "a", "namespace": "team", "uid": "uid-new"}, "spec": job_spec()}
    )
    world.settle()
    assert world.conditions()["Planned"] == ("False", reasons.NAME_CONFLICT)
    assert world.status.plan is None
    for kind, name in (
        ("PersistentVolumeClaim", "a-workspace"),
        ("Job", "a-prepare-1"),
        ("Pod", "a-prepare-1-x"),
        ("Job", "a-train-1"),
    ):
        world.cluster.remove(kind, name)
    world.one_pass()
    world.settle()
    assert world.jobs() == ["a-prepare-1"]
    assert world.conditions()["DataReady"][0] == "False", "the old pod's result is not the new job's"


def test_a_job_seen_complete_before_its_pod_is_not_started_again() -> None:
    world = World()
    world.settle()
    pod = world.make_pod("a-prepare-1")
    world.run_pod(pod)
    world.settle()
    world.end_pod(pod, message=result_text(Stage.PREPARE, world.digest))
    late = world.told.pop()
    world.set_job("a-prepare-1", conditions=[{"type": "Complete", "status": "True"}])
    world.settle()
    assert world.jobs() == ["a-prepare-1", "a-train-1"]
    world.told.append(late)
    world.settle()
    assert [attempt.outcome for attempt in world.status.attempts] == ["Succeeded", "Running"]


@pytest.mark.parametrize("is_pod_seen", [True, False])
def test_a_job_seen_failed_before_its_pod_is_judged_by_the_pod_s_own_words(is_pod_seen: bool) -> None:
    world = World()
    world.settle()
    pod = world.make_pod("a-prepare-1")
    if is_pod_seen:
        world.settle()
    message = failure_text(Stage.PREPARE, world.digest, FailureClass.BAD_INPUT, "train.jsonl:3:7: no JSON")
    world.end_pod(pod, exit_code=10, reason="Error", message=message)
    world.told = [told for told in world.told if told[0] != "Pod"]
    world.fail_job("a-prepare-1")
    world.settle()
    assert world.jobs() == ["a-prepare-1"]
    assert world.conditions()["Succeeded"] == ("False", FailureClass.BAD_INPUT.value)
    assert world.status.message == "train.jsonl:3:7: no JSON"
