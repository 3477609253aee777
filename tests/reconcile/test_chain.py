# SPDX-License-Identifier: Apache-2.0
"""The whole life of a job on the world in memory: what is created, what status says, how many requests it costs."""

import json

from support.samples import (
    PREPARE_FACTS,
    PUBLISH_FACTS,
    TRAIN_FACTS,
    job_spec,
    result_text,
    runtime_spec,
    runtime_without_endpoint,
)
from support.world.world import KEY, World
from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import Progress, Stage
from tuneyard_api.status import State
from tuneyard_operator.domain.observed import SeenEvent

PLAN = names.plan_name("a", "uid-a")


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


def test_what_was_found_in_the_data_is_said_where_the_job_says_that_it_is_ready() -> None:
    world = World()
    world.settle()
    pod = world.make_pod("a-prepare-1")
    found = {"duplicateRecords": 3, "leakedRecords": 0, "personalDataHints": 7}
    text = result_text(Stage.PREPARE, world.digest, facts=PREPARE_FACTS | found)
    world.end_pod(pod, message=text)
    world.settle()
    assert world.conditions()["DataReady"] == ("True", reasons.PREPARED)
    [ready] = [condition for condition in world.status.conditions if condition.type == "DataReady"]
    assert ready.message == (
        "100 records in 20 sequences, 20000 tokens, 2 truncated, 3 duplicates, 7 hints at personal data"
    )


def test_the_happy_path_costs_at_most_ten_requests_above_its_objects() -> None:
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
    assert others.count("patch status") == 5
    assert len(others) <= 7, others


def test_without_an_endpoint_the_job_ends_after_publish() -> None:
    world = World(runtime=runtime_without_endpoint())
    world.settle()
    for stage in Stage:
        world.carry_out(stage)
    assert world.status.state is State.SUCCEEDED
    assert "Served" not in world.conditions()
    assert world.servers.asked == []


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


def test_of_several_quotas_without_room_one_is_named_and_stays_named() -> None:
    """The API server names another one at each try, and Kubernetes keeps only the latest words of an event that repeats."""
    world = World()
    world.settle()
    written = []

    def try_again(quota: str, seconds: float = 60) -> str:
        world.advance(seconds)
        words = (
            f'Error creating: pods "a-prepare-1-q" is forbidden: exceeded quota: {quota}, requested: pods=1'
        )
        world.cluster.seen_events = (SeenEvent("Job", "a-prepare-1", "FailedCreate", words, world.now()),)
        world.one_pass()
        written.append(world.cluster.calls.count("patch status"))
        assert world.status.waiting_for is not None
        return world.status.waiting_for.name

    assert [try_again(quota) for quota in ("zz", "aa", "zz", "mm", "zz", "zz")] == ["zz", *["aa"] * 5]
    assert written[-1] == written[1], "status is written when another quota is named, and then no more"
    assert [try_again("zz", seconds=240) for _ in range(2)] == ["aa", "mm"], "aa has room again"


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
    world.cluster.remove("ConfigMap", PLAN)
    world.start_operator()
    world.settle()
    assert ("ConfigMap", "team", PLAN) in world.cluster.objects
    world.carry_out(Stage.PREPARE)
    assert world.jobs() == ["a-prepare-1", "a-train-1"]


def mounted_plan(world: World, job: str) -> str:
    """The ConfigMap that the pods of a Job mount; it is there."""
    volumes = world.cluster.objects["Job", "team", job]["spec"]["template"]["spec"]["volumes"]
    [name] = [volume["configMap"]["name"] for volume in volumes if "configMap" in volume]
    assert ("ConfigMap", "team", name) in world.cluster.objects
    return name


def test_a_job_that_an_older_operator_started_continues_with_what_it_was_started_with() -> None:
    """That operator gave the ConfigMap another name: pods that it made still mount it."""
    world = World(spec=job_spec(ttl={"afterSuccessSeconds": 0}))
    world.settle()
    plan = world.cluster.objects["ConfigMap", "team", PLAN]
    world.cluster.remove("ConfigMap", PLAN)
    world.cluster.store("ConfigMap", {**plan, "metadata": {**plan["metadata"], "name": "a-plan"}})
    world.cluster.store(
        names.RUNTIME_KIND,
        {"metadata": {"name": "hf"}, "spec": runtime_spec(image="registry.example/trainer:2")},
    )
    world.start_operator()
    world.settle()
    world.carry_out(Stage.PREPARE)
    train = world.cluster.objects["Job", "team", "a-train-1"]
    assert train["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/trainer:1"
    assert mounted_plan(world, "a-train-1") == PLAN
    assert world.cluster.objects["ConfigMap", "team", PLAN]["data"] == plan["data"]
    world.start_operator()
    calls = len(world.cluster.calls)
    world.settle()
    assert "create ConfigMap" not in " ".join(world.cluster.calls[calls:])
    world.carry_out(Stage.TRAIN)
    world.carry_out(Stage.PUBLISH)
    world.settle()
    assert world.status.state is State.SUCCEEDED
    assert world.cluster.of_kind("ConfigMap") == []


def test_a_deleted_plan_that_cannot_be_made_again_ends_the_job() -> None:
    world = World()
    world.settle()
    world.cluster.remove("ConfigMap", PLAN)
    changed = world.cluster.objects[names.JOB_KIND, "team", "a"]
    world.cluster.store(names.JOB_KIND, {**changed, "spec": job_spec(training={"seed": 7})})
    world.start_operator()
    world.settle()
    assert world.status.state is State.FAILED
    assert world.conditions()["Succeeded"] == ("False", reasons.PLAN_LOST)


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


def test_the_page_of_the_job_at_its_tracker_is_in_status_and_what_it_lacks_is_said() -> None:
    world = World()
    world.settle()
    world.carry_out(Stage.PREPARE)
    pod = world.make_pod("a-train-1")
    world.run_pod(pod)
    world.progress.answer = Progress(
        stage=Stage.TRAIN, phase="training", step=1, of=40, tracking="http://t/#/1"
    )
    world.settle()
    assert world.status.tracking == "http://t/#/1"
    world.carry_out_pod(pod, Stage.TRAIN)
    published = world.make_pod("a-publish-1")
    lacking = PUBLISH_FACTS | {"warnings": ["the tracker lacks a part of this job"]}
    world.end_pod(published, message=result_text(Stage.PUBLISH, world.digest, facts=lacking))
    world.settle()
    assert world.status.tracking == "http://t/#/1", "what was known stays"
    [done] = [each for each in world.status.conditions if each.type == "Published"]
    assert done.message == "/registry/a, 1234 bytes, sha256:adapter; the tracker lacks a part of this job"
