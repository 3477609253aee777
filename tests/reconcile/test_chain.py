# SPDX-License-Identifier: Apache-2.0
"""The whole life of a job on the world in memory: what is created, what status says, how many requests it costs."""

import json
from typing import Any

import pytest
from fake_world import KEY, World
from operator_samples import (
    TRAIN_FACTS,
    failure_text,
    job_spec,
    result_text,
    runtime_spec,
    runtime_without_endpoint,
)
from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import FailureClass, Progress, Stage
from tuneyard_api.status import State
from tuneyard_operator.domain.observed import EndpointAnswer, SeenEvent
from tuneyard_operator.ports import RefusedError


def test_a_job_goes_through_every_step_to_succeeded() -> None:
    world = World()
    world.settle()
    assert world.jobs() == ["a-prepare-1"]
    assert world.status.state is State.PREPARING
    world.carry_out(Stage.PREPARE)
    assert world.status.state is State.TRAINING
    world.carry_out(Stage.TRAIN)
    assert world.status.state is State.PUBLISHING
    world.carry_out(Stage.PUBLISH)
    status = world.status
    assert status.state is State.SUCCEEDED
    assert {kind: status for kind, (status, _) in world.conditions().items()} == dict.fromkeys(
        [
            "Accepted",
            "Planned",
            "DataReady",
            "Scheduled",
            "Trained",
            "Evaluated",
            "Published",
            "Served",
            "Succeeded",
        ],
        "True",
    )
    assert world.jobs() == ["a-prepare-1", "a-train-1", "a-publish-1"]
    assert status.result is not None
    assert status.result.adapter is not None
    assert status.result.adapter.digest == "sha256:adapter"
    assert status.result.metrics is not None
    assert status.result.metrics.tuned.rouge_l == TRAIN_FACTS["evaluation"]["tuned"]["rougeL"]
    assert status.result.endpoint == "http://nim.example:8000"
    assert status.progress is not None
    assert (status.progress.step, status.progress.percent) == (40, 100)
    assert [attempt.outcome for attempt in status.attempts] == ["Succeeded"] * 3
    assert status.started is not None
    assert status.ended is not None


def test_the_happy_path_costs_at_most_eight_requests_above_its_objects() -> None:
    world = World()
    world.cluster.calls.clear()
    world.settle()
    for stage in Stage:
        pod = world.make_pod(f"a-{stage}-1")
        world.settle()
        world.run_pod(pod)
        world.settle()
        world.end_pod(pod, message=result_text(stage, world.digest))
        world.settle()
    assert world.status.state is State.SUCCEEDED
    objects = [call for call in world.cluster.calls if call.startswith("create")]
    assert len(objects) == 5, objects
    others = [call for call in world.cluster.calls if not call.startswith("create")]
    assert others.count("patch status") == 6
    assert len(others) <= 8, others


def test_without_an_endpoint_the_job_ends_after_publish() -> None:
    world = World(runtime=runtime_without_endpoint())
    world.settle()
    for stage in Stage:
        world.carry_out(stage)
    assert world.status.state is State.SUCCEEDED
    assert "Served" not in world.conditions()
    assert world.endpoint.asked == 0


def test_a_second_pass_changes_nothing() -> None:
    world = World()
    world.settle()
    for stage in Stage:
        calls = len(world.cluster.calls)
        before = world.status
        world.one_pass()
        assert world.status == before
        assert world.cluster.calls[calls:] == []
        world.carry_out(stage)


def test_the_operator_s_own_writes_are_no_news_to_it() -> None:
    world = World()
    world.deliver()
    world.one_pass()
    world.deliver()
    assert world.due == set()
    world.make_pod("a-prepare-1")
    world.deliver()
    assert world.due == {KEY}


def test_what_happens_to_the_job_of_a_finished_stage_is_no_news() -> None:
    world = World()
    world.settle()
    world.carry_out(Stage.PREPARE)
    world.set_job("a-prepare-1", succeeded=1, conditions=[{"type": "Complete", "status": "True"}])
    world.set_pod("a-prepare-1-x", message="whatever")
    world.deliver()
    assert world.due == set()


def test_a_job_without_a_pod_asks_for_warnings_after_a_while_and_says_what_they_say() -> None:
    world = World()
    world.settle()
    words = 'Error creating: pods "a-prepare-1-q" is forbidden: exceeded quota: few, requested: pods=1'
    world.cluster.seen_events = (SeenEvent("Job", "a-prepare-1", "FailedCreate", words, world.now()),)
    world.advance(5)
    world.one_pass()
    assert "list warnings" not in world.cluster.calls
    world.advance(6)
    world.one_pass()
    assert world.cluster.calls.count("list warnings") == 1
    assert world.conditions()["DataReady"] == ("False", reasons.QUOTA_EXCEEDED)


def test_a_finished_job_is_never_looked_at_again() -> None:
    world = World()
    world.settle()
    for stage in Stage:
        world.carry_out(stage)
    for kind in ("Job", "Pod"):
        for body in world.cluster.of_kind(kind):
            world.cluster.remove(kind, body["metadata"]["name"])
    world.start_operator()
    before, calls = world.status, len(world.cluster.calls)
    world.settle()
    world.one_pass()
    assert world.status == before
    assert world.cluster.calls[calls:] == []


def test_finished_stages_are_not_repeated_when_their_jobs_are_deleted() -> None:
    world = World()
    world.settle()
    world.carry_out(Stage.PREPARE)
    world.cluster.remove("Pod", "a-prepare-1-x")
    world.cluster.remove("Job", "a-prepare-1")
    world.settle()
    world.start_operator()
    world.settle()
    world.carry_out(Stage.TRAIN)
    assert world.jobs() == ["a-train-1", "a-publish-1"]
    assert world.conditions()["DataReady"][0] == "True"


def test_a_running_job_keeps_the_runtime_that_it_was_started_with() -> None:
    world = World()
    world.settle()
    world.cluster.store(
        names.RUNTIME_KIND,
        {"metadata": {"name": "hf"}, "spec": runtime_spec(image="registry.example/trainer:2")},
    )
    world.start_operator()
    world.carry_out(Stage.PREPARE)
    train = world.cluster.objects["Job", "team", "a-train-1"]
    assert train["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/trainer:1"


def test_a_deleted_plan_is_written_again_from_the_same_words() -> None:
    world = World()
    world.settle()
    world.cluster.remove("ConfigMap", "a-plan")
    world.start_operator()
    world.settle()
    assert ("ConfigMap", "team", "a-plan") in world.cluster.objects
    world.carry_out(Stage.PREPARE)
    assert world.jobs() == ["a-prepare-1", "a-train-1"]


def test_a_deleted_plan_that_cannot_be_made_again_ends_the_job() -> None:
    world = World()
    world.settle()
    world.cluster.remove("ConfigMap", "a-plan")
    changed = world.cluster.objects[names.JOB_KIND, "team", "a"]
    world.cluster.store(names.JOB_KIND, {**changed, "spec": job_spec(training={"seed": 7})})
    world.start_operator()
    world.settle()
    assert world.status.state is State.FAILED
    assert world.conditions()["Succeeded"] == ("False", reasons.PLAN_LOST)


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
    assert world.jobs() == ["a-prepare-1", "a-prepare-2"]
    first, second = world.status.attempts
    assert (first.outcome, first.failure_class, first.message) == ("Failed", kind, "hub is down")
    assert (second.number, second.outcome) == (2, "Running")
    assert [event["reason"] for event in world.cluster.events] == [reasons.RETRYING]
    world.carry_out(Stage.PREPARE, attempt=2)
    assert world.conditions()["DataReady"][0] == "True"


def test_attempts_end_where_the_job_says() -> None:
    world = World(spec=job_spec(retry={"maxAttempts": 2}))
    world.settle()
    for attempt in (1, 2):
        pod = world.make_pod(f"a-prepare-{attempt}")
        world.end_pod(pod, exit_code=143, reason="Error")
        world.fail_job(f"a-prepare-{attempt}")
        world.settle()
    assert world.jobs() == ["a-prepare-1", "a-prepare-2"]
    assert world.conditions()["Succeeded"] == ("False", reasons.ATTEMPTS_EXHAUSTED)
    assert world.conditions()["DataReady"] == ("False", reasons.ATTEMPTS_EXHAUSTED)
    assert world.status.message is not None
    assert world.status.message.startswith(
        "gave up after 2 attempts of prepare; the last: prepare attempt 2, pod a-prepare-2-x: killed by SIGTERM"
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
    assert world.requeue is None


def test_a_quota_that_refuses_the_training_job_keeps_what_prepare_found() -> None:
    world = World()
    world.settle()
    refusal = 'jobs.batch "a-train-1" is forbidden: exceeded quota: few, requested: count/jobs.batch=1, used: 3, limited: 3'
    world.cluster.refuse["Job"] = RefusedError("Forbidden", refusal)
    world.carry_out(Stage.PREPARE)
    assert world.conditions()["DataReady"][0] == "True"
    assert world.conditions()["Scheduled"] == ("False", reasons.QUOTA_EXCEEDED)
    assert [attempt.job for attempt in world.status.attempts] == ["a-prepare-1"]
    assert world.status.waiting_for is not None
    assert refusal in world.status.waiting_for.message
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
        ("ConfigMap", "a-plan"),
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


def test_progress_is_read_from_the_pod_and_written_only_when_the_step_moved() -> None:
    world = World()
    world.settle()
    world.carry_out(Stage.PREPARE)
    world.progress.answer = Progress(
        stage=Stage.TRAIN,
        phase="training",
        step=10,
        of=40,
        loss=2.5,
        tokens_per_second=800.0,
        eta_seconds=200,
    )
    world.run_pod(world.make_pod("a-train-1"))
    world.settle()
    assert world.progress.asked == ["http://10.0.0.9:9470/progress"]
    progress = world.status.progress
    assert progress is not None
    assert (progress.step, progress.of, progress.percent, progress.loss, progress.eta) == (
        10,
        40,
        25,
        2.5,
        "3m20s",
    )
    writes = world.cluster.calls.count("patch status")
    world.advance(5)
    world.one_pass()
    assert len(world.progress.asked) == 1, "at most every ten seconds"
    world.advance(10)
    world.one_pass()
    assert len(world.progress.asked) == 2
    assert world.cluster.calls.count("patch status") == writes, "the step has not moved"
    world.progress.answer = world.progress.answer.model_copy(update={"step": 20, "eta_seconds": None})
    world.advance(10)
    world.one_pass()
    assert world.status.progress is not None
    assert (world.status.progress.step, world.status.progress.eta) == (20, None)


def test_serving_waits_for_the_adapter_and_gives_up_with_what_the_endpoint_lists() -> None:
    world = World(spec=job_spec(serve={"timeoutSeconds": 30}))
    world.endpoint.answer = EndpointAnswer(models=("base", "other"))
    world.settle()
    for stage in Stage:
        world.carry_out(stage)
    assert world.status.state is State.SERVING
    assert world.conditions()["Served"] == ("False", reasons.WAITING_FOR_ENDPOINT)
    assert world.cluster.events == [], "an endpoint that has not looked yet is nothing to tell people"
    world.advance(31)
    world.one_pass()
    world.settle()
    assert world.status.state is State.FAILED
    assert world.status.message == "after 30 s http://nim.example:8000 does not list a; it lists base, other"
    assert world.status.result is not None
    assert world.status.result.adapter is not None, "it is published all the same"


def test_events_come_after_the_status_and_not_at_all_when_it_cannot_be_written() -> None:
    world = World(spec=job_spec(method="sft"))
    world.settle()
    assert world.cluster.calls[-2:] == ["patch status", "event MethodNotInRuntime"]


def test_every_status_that_is_written_is_within_the_contract() -> None:
    world = World()
    world.settle()
    for stage in Stage:
        world.carry_out(stage)
    raw = world.cluster.objects[names.JOB_KIND, "team", "a"]["status"]
    assert json.loads(world.status.model_dump_json(by_alias=True, exclude_none=True)) == raw
