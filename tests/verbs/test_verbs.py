# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard` and tuneyard.client: what they print of jobs that the operator itself has reported on."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.api_double import ApiDouble
from support.samples import PUBLISH_FACTS, TRAIN_FACTS, failure_text, job_spec, result_text
from support.world.world import World
from tuneyard.client import Client, InputError
from tuneyard.main import verbs
from tuneyard_api import names
from tuneyard_api.ledger import PhaseTimes
from tuneyard_api.pod_contract import FailureClass, Progress, Stage

JOBS = "/apis/tuneyard.io/v1alpha1/namespaces/{}/finetunejobs"
PODS, EVENTS = "/api/v1/namespaces/team/pods", "/api/v1/namespaces/team/events"


@pytest.fixture
def api() -> ApiDouble:
    return ApiDouble()


@pytest.fixture
def kubeconfig(api: ApiDouble, tmp_path: Path) -> Iterator[Path]:
    with api.served(tmp_path) as config:
        yield config


@pytest.fixture
def run(kubeconfig: Path) -> Any:
    def call(*words: str) -> Result:
        return CliRunner().invoke(verbs, [*words, "--kubeconfig", str(kubeconfig)])

    return call


def training() -> World:
    """A job that trains, a hundred steps of four hundred."""
    world = World(spec=job_spec(runtime={"name": "hf"}))
    world.settle()
    world.advance(20)
    world.carry_out(Stage.PREPARE)
    pod = world.make_pod("a-train-1")
    world.advance(30)
    world.run_pod(pod)
    world.settle()
    world.advance(60)
    world.progress.answer = Progress(
        stage=Stage.TRAIN, phase="training", step=100, of=400, loss=2.5, tokens_per_second=800.0,
        eta_seconds=200, times=PhaseTimes(seconds={"loading": 10, "training": 50}),
    )  # fmt: skip
    world.one_pass()
    return world


def ended(publish: Mapping[str, Any] | None = None, **facts: Any) -> World:
    world = training()
    world.advance(5)
    times = {"seconds": dict(Counter(loading=10, training=50, evaluating=5)), "unsavedSeconds": 0}
    said = result_text(Stage.TRAIN, world.digest, facts={**TRAIN_FACTS, **facts}, times=times)
    world.end_pod("a-train-1-x", message=said)
    world.settle()
    pod = world.make_pod("a-publish-1")
    published = result_text(Stage.PUBLISH, world.digest, facts={**PUBLISH_FACTS, **(publish or {})})
    world.end_pod(pod, message=published)
    world.settle()
    assert world.status.state == "Succeeded"
    return world


def show(api: ApiDouble, world: World, name: str = "a", namespace: str = "team", **labels: str) -> None:
    """What the world holds, as the API server would show it."""
    body = world.cluster.objects[names.JOB_KIND, "team", "a"]
    metadata = {**body["metadata"], "name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}"}
    metadata["labels"] = {f"{names.GROUP}/{key.replace('_', '-')}": value for key, value in labels.items()}
    api.put(JOBS.format(namespace), {**body, "metadata": metadata})
    for pod in world.cluster.of_kind("Pod"):
        api.put(PODS, pod)


def test_list_shows_how_far_each_job_is(api: ApiDouble, run: Any) -> None:
    show(api, training())
    show(api, ended(), "b", "other")
    mine = run("list")
    assert mine.exit_code == 0, mine.output
    assert mine.stdout.splitlines()[0].split() == [
        "NAME", "STATE", "PROGRESS", "LOSS", "TOK/S", "ETA", "WAITING", "ADAPTER", "GPU-H", "AGE",
    ]  # fmt: skip
    row = mine.stdout.splitlines()[1]
    assert row.startswith("a     Training  100/400 (25%)  2.5   800    3m20s")
    everything = run("list", "-A").stdout
    assert [line.split()[0] for line in everything.splitlines()] == ["NAMESPACE", "other", "team"]
    assert [job["metadata"]["name"] for job in json.loads(run("list", "-A", "-o", "json").stdout)] == [
        "b",
        "a",
    ]
    assert "\x1b" not in everything, "colours are for terminals"


def test_an_empty_namespace_is_no_error_and_a_cluster_without_tuneyard_is_one(
    api: ApiDouble, run: Any
) -> None:
    empty = run("list", "-n", "elsewhere")
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert "There is no FineTuneJob in namespace elsewhere." in empty.stderr
    api.groups.clear()
    strange = run("list")
    assert strange.exit_code == 1
    assert "knows no FineTuneJobs: Tuneyard's CRDs are not installed" in strange.stderr


def test_the_namespace_is_the_context_s(api: ApiDouble, run: Any) -> None:
    show(api, training(), namespace="elsewhere")
    assert run("list", "--context", "other").stdout.splitlines()[1].startswith("a ")
    assert "in namespace team" in run("list").stderr


def test_a_name_that_is_not_there_says_which_one_is_near(api: ApiDouble, run: Any) -> None:
    show(api, training(), "answers")
    show(api, training(), "titles")
    for verb in ("why", "describe", "logs", "suspend", "resume"):
        wrong = run(verb, "anwsers")
        assert wrong.exit_code == 1
        assert wrong.stderr == "there is no FineTuneJob anwsers in namespace team; try answers\n", (
            wrong.output
        )


def test_no_right_and_no_cluster_say_so(api: ApiDouble, run: Any, tmp_path: Path) -> None:
    show(api, training())
    api.forbidden.add(JOBS.format("team"))
    refused = run("suspend", "a")
    assert refused.exit_code == 1
    assert 'User "ada" cannot' in refused.stderr
    assert "the rights of this user" in refused.stderr
    (tmp_path / "config").write_text((tmp_path / "config").read_text().replace("127.0.0.1:", "127.0.0.1:1"))
    gone = run("list")
    assert gone.exit_code == 1
    assert not isinstance(gone.exception, Exception), gone.exception


def test_describe_is_one_screen_with_where_the_time_went(api: ApiDouble, run: Any) -> None:
    show(api, ended(), requested_by="ada")
    said = run("describe", "a")
    assert said.exit_code == 0, said.output
    text = said.stdout
    for part in (
        "a in team: Succeeded",
        "asked by  ada",
        "adapter   a, sha256:adapter, /registry/a",
        "goodput 77 %",
        "✓ Evaluated",
    ):
        assert part in text, text
    parts = [line.split() for line in text.splitlines() if "░" in line or "█" in line]
    assert {part: (length, percent) for part, length, percent, *_ in parts}["training"] == ("50s", "43")


def test_describe_has_the_page_of_the_job_at_its_tracker(api: ApiDouble, run: Any) -> None:
    show(api, ended(publish={"tracking": "http://mlflow.example:5000/#/experiments/1/runs/2"}))
    assert "tracked   at http://mlflow.example:5000/#/experiments/1/runs/2" in run("describe", "a").stdout


def test_why_names_what_blocks_and_what_to_try(api: ApiDouble, run: Any) -> None:
    world = World(spec=job_spec())
    world.settle()
    world.carry_out(Stage.PREPARE)
    pod = world.make_pod("a-train-1")
    full = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    world.set_pod(
        pod, conditions=[{**full, "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}]
    )
    world.advance(60)
    world.settle()
    show(api, world)
    event = {
        "type": "Warning",
        "reason": "FailedScheduling",
        "message": "0/3 nodes",
        "lastTimestamp": "2026-01-01T12:00:00Z",
    }
    api.put(EVENTS, {**event, "metadata": {"name": "e1"}, "involvedObject": {"kind": "Pod", "name": pod}})
    api.put(EVENTS, {**event, "metadata": {"name": "e2"}, "involvedObject": {"kind": "Pod", "name": "other"}})
    said = run("why", "a").stdout.splitlines()
    assert said[0].startswith(
        f"a: it waits for Pod {pod}: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu, for "
    )
    assert (
        said[1] == "try: kubectl tuneyard top -A, which shows who holds the GPUs; or fewer GPUs in a new job"
    )
    assert said[2:] == [f"  Pod {pod}: FailedScheduling: 0/3 nodes"]
    assert json.loads(run("why", "a", "-o", "json").stdout)["state"] == "Waiting"


def test_logs_find_the_pod_of_the_running_attempt(api: ApiDouble, run: Any) -> None:
    show(api, training())
    api.logs = {"a-train-1-x": "one\ntwo\nthree\n", "a-prepare-1-x": "prepared\n"}
    assert run("logs", "a").stdout == "one\ntwo\nthree\n"
    assert run("logs", "a", "--tail", "1").stdout == "three\n"
    assert run("logs", "a", "--stage", "prepare").stdout == "prepared\n"
    none = run("logs", "a", "--stage", "publish")
    assert none.exit_code == 1
    assert "FineTuneJob a has no attempt of publish; try kubectl tuneyard why a" in none.stderr


def test_logs_of_a_pod_that_is_gone_are_what_status_keeps(api: ApiDouble, run: Any) -> None:
    world = training()
    message = json.loads(failure_text(Stage.TRAIN, world.digest, FailureClass.UPSTREAM, "words"))
    message["failure"]["lastLines"] = "train: training 7/28\nConnectionError"
    world.end_pod("a-train-1-x", exit_code=1, message=json.dumps(message))
    world.fail_job("a-train-1")
    world.settle()
    show(api, world)
    api.objects = {path: body for path, body in api.objects.items() if not path.startswith(PODS)}
    assert run("logs", "a").stdout == "train: training 7/28\nConnectionError\n"
    assert run("logs", "a", "--attempt", "1", "--stage", "train", "--tail", "1").stdout == "ConnectionError\n"
    none = run("logs", "a", "--attempt", "9")
    assert (none.exit_code, "has no attempt 9" in none.stderr) == (1, True)


def test_suspend_and_resume_change_the_spec_and_nothing_else(api: ApiDouble, run: Any) -> None:
    show(api, training())
    path = f"{JOBS.format('team')}/a"
    before = json.dumps(api.objects[path]["status"])
    assert run("suspend", "a").stdout == "team/a is asked to write a checkpoint and to leave\n"
    assert api.objects[path]["spec"]["suspend"] is True
    assert run("resume", "a").exit_code == 0
    assert (api.objects[path]["spec"]["suspend"], json.dumps(api.objects[path]["status"])) == (False, before)
    show(api, ended(), "b")
    over = run("suspend", "b")
    assert (over.exit_code, over.stderr) == (1, "FineTuneJob b has ended (Succeeded): nothing of it runs\n")


def test_compare_shows_what_differs_and_by_how_much(api: ApiDouble, kubeconfig: Path, run: Any) -> None:
    show(api, ended())
    show(api, ended(seconds=10.0, tokensPerSecond=2000.0), "b", "other")
    api.objects[f"{JOBS.format('other')}/b"]["spec"] = job_spec(lora={"rank": 32})
    client = Client(kubeconfig=kubeconfig)
    found = client.compare("a", "other/b")
    assert {(row.what, row.left, row.right) for row in found.spec} == {
        ("lora.rank", None, 32),
        ("runtime.name", "hf", None),
    }
    speed = next(row for row in found.measured if row.what == "tokens/s")
    assert (speed.left, speed.right) == (1000.0, 2000.0)
    text = run("compare", "a", "other/b").stdout
    [line] = [line for line in text.splitlines() if line.startswith("tokens/s")]
    assert line.split() == ["tokens/s", "1000", "2000", "+100.0", "%"]


def test_top_adds_gpu_hours_up_by_namespace_and_by_who_asked(
    api: ApiDouble, kubeconfig: Path, run: Any
) -> None:
    show(api, training(), requested_by="ada")
    show(api, ended(), "b", "other", requested_by="ada")
    show(api, ended(), "c", "other")
    usage = Client(kubeconfig=kubeconfig).top(all_namespaces=True)
    assert [job.name for job in usage.training] == ["a"]
    assert (usage.gpus, usage.tokens_per_second) == (1, 800.0)
    hours = {namespace: round(3600 * used, -1) for namespace, used in usage.by_namespace.items()}
    assert hours == {"other": 130, "team": 60}, "two pods of 65 s, one of 60 s so far"
    assert sum(usage.by_requester.values()) == pytest.approx(sum(usage.by_namespace.values()), abs=0.002)
    assert set(usage.by_requester) == {"ada", "(no label)"}
    assert "1 job trains on 1 GPU, 800 tokens/s" in run("top", "-A").stdout


def test_the_client_raises_the_same_errors(kubeconfig: Path) -> None:
    with pytest.raises(InputError, match="there is no FineTuneJob x in namespace team"):
        Client(kubeconfig=kubeconfig).get("x")
