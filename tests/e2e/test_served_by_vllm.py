# SPDX-License-Identifier: Apache-2.0
"""From the rendered objects of environments/open.yaml to real vLLM that answers with the adapter of a ten-line job."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.bench import Bench
from support.open_tree import MODEL, NAMESPACE, REPO, RUNTIME, OpenTree, standing
from tuneyard_api import yaml_io
from tuneyard_local import installation
from tuneyard_local.paths import REPOSITORY
from tuneyard_local.progress import Progress, wait_until
from tuneyard_local.vllm import missing_for_vllm

JOB_FILE = REPOSITORY / "examples" / "docstrings-lora.yaml"
JOB_SECONDS = 400
ANSWER_TOKENS = 16
PROGRESS = Progress()
ASK = """
import json, urllib.error, urllib.request
def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        return urllib.request.urlopen(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code
"""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def open_tree(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenTree]:
    if reason := missing_for_vllm():
        pytest.skip(reason)
    with standing(bench, tmp_path_factory.mktemp("open")) as tree:
        yield tree


@pytest.fixture(scope="module")
def ten_lines(open_tree: OpenTree) -> dict[str, Any]:
    """The status of the ten-line job, which has succeeded."""
    return run(open_tree, build_job("docstrings"))


def build_job(name: str, **changes: Any) -> dict[str, Any]:
    """The ten lines of the README with the model that `open` serves, over in a few steps; `changes` are fields of spec."""
    job: dict[str, Any] = yaml_io.load(JOB_FILE.read_text(), str(JOB_FILE)).value
    job["metadata"]["name"] = name
    job["spec"] |= {
        "model": {"huggingFace": {"repo": REPO}},
        "runtime": {"name": RUNTIME},
        "training": {**job["spec"]["training"], "maxSteps": 12, "learningRate": 0.003},
        "evaluation": {"maxPrompts": 8, "maxNewTokens": ANSWER_TOKENS},
        **changes,
    }
    return job


def build_short_job(name: str, **changes: Any) -> dict[str, Any]:
    """The same with few held-out records."""
    training = {"pvc": {"claimName": "datasets", "path": "docstrings/train.jsonl"}}
    return build_job(name, dataset={"training": training, "validationFraction": 0.01}, **changes)


def run(tree: OpenTree, job: dict[str, Any]) -> dict[str, Any]:
    """Apply a job; its status when it has succeeded."""
    tree.bench.apply(job)
    return succeeded(tree, job["metadata"]["name"])


def succeeded(tree: OpenTree, name: str) -> dict[str, Any]:
    status = tree.bench.wait_for_state(name, "Succeeded", JOB_SECONDS)
    PROGRESS.say(f"{name}: served {status['result']['servedAfterSeconds']} s after it was published")
    return status


def check_answers(tree: OpenTree, job: str, adapter: str) -> None:
    """Base and tuned model answer through vLLM as they did in the job's own evaluation, and not alike."""
    samples = tree.samples(job)
    answers = {
        side: [tree.answer(model, each["prompt"], ANSWER_TOKENS) for each in samples]
        for side, model in (("base", MODEL), ("tuned", adapter))
    }
    for side, found in answers.items():
        assert found == [each[side] for each in samples], side
    assert answers["base"] != answers["tuned"]


def stored(status: dict[str, Any]) -> str:
    """The folder beside the server of the version that a job has published."""
    adapter = status["result"]["adapter"]
    return f"/adapters/.store/{adapter['name']}/{adapter['digest'].removeprefix('sha256:')}"


def run_in_pod(tree: OpenTree, namespace: str, pod: str, expression: str) -> Any:
    """The value of a Python expression in a pod, where `ask` tells the status of an answer."""
    script = f"{ASK}print(json.dumps({expression}))"
    done = tree.cluster.kubectl("-n", namespace, "exec", pod, "-c", "server", "--", "python3", "-c", script)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_ten_line_job_ends_in_an_adapter_that_vllm_answers_with(
    open_tree: OpenTree, ten_lines: dict[str, Any]
) -> None:
    result = ten_lines["result"]
    assert {each["status"] for each in ten_lines["conditions"]} == {"True"}
    assert result["modelName"] == "docstrings"
    assert result["endpoint"] == f"http://{MODEL}.{NAMESPACE}.svc.cluster.local:8000"
    assert 0 <= result["servedAfterSeconds"] <= 30
    roots = open_tree.roots()
    assert (roots[MODEL], roots["docstrings"]) == (REPO, stored(ten_lines))
    check_answers(open_tree, "docstrings", "docstrings")


def test_a_pod_of_another_namespace_can_ask_but_not_load(bench: Bench, open_tree: OpenTree) -> None:
    server = f"http://{MODEL}.{NAMESPACE}:8000"
    complete = {"model": MODEL, "prompt": "a", "max_tokens": 1}
    load = {"lora_name": "mine", "lora_path": "/adapters/mine"}
    asked = (
        f"[ask('{server}/v1/models'), ask('{server}/v1/completions', {complete}),"
        f" ask('{server}/v1/load_lora_adapter', {load}), ask('{server}/v1/unload_lora_adapter', {load})]"
    )
    pod = f"deployment/{installation.SERVICE}"
    assert run_in_pod(open_tree, bench.namespace, pod, asked) == [200, 200, 403, 403]


@pytest.mark.long
def test_another_name_and_a_new_version_of_it_are_served_without_a_restart(
    open_tree: OpenTree, ten_lines: dict[str, Any]
) -> None:
    before = open_tree.starts()
    second = run(open_tree, build_short_job("second", lora={"rank": 8}))
    roots = open_tree.roots()
    assert (roots["docstrings"], roots["second"]) == (stored(ten_lines), stored(second))
    check_answers(open_tree, "second", "second")

    publish = {"adapterName": "second", "replace": True}
    newer = run(open_tree, build_short_job("newer", publish=publish, lora={"rank": 4}))
    roots = open_tree.roots()
    assert (roots["docstrings"], roots["second"]) == (stored(ten_lines), stored(newer))
    assert stored(newer) != stored(second)
    # The same prompts as before, so that nothing that was kept of the old version may answer.
    check_answers(open_tree, "newer", "second")
    assert open_tree.starts() == before


@pytest.fixture
def bare_replica(open_tree: OpenTree) -> Iterator[str]:
    """The address of a second replica, beside which no adapter-sync runs: our small server, as two vLLMs take 6 GB."""
    cluster, path = open_tree.cluster, f"/api/v1/namespaces/{NAMESPACE}/pods/bare"
    cluster.apply(build_bare_replica(open_tree))
    wait_until("the bare replica", lambda: is_ready(cluster.get(path)), 120, pause=1)
    yield f"{cluster.get(path)['status']['podIP']}:8000"
    cluster.kubectl("-n", NAMESPACE, "delete", "pod", "bare", "--wait=false")


@pytest.mark.long
def test_every_replica_must_have_the_adapter_and_a_new_pod_gets_it_again(
    open_tree: OpenTree, bare_replica: str
) -> None:
    bench, cluster = open_tree.bench, open_tree.cluster
    endpoint = f"http://{MODEL}.{NAMESPACE}.svc.cluster.local:8000"
    problem = (
        f"1 of 2 replicas of {endpoint} does not serve everywhere:"
        f" {bare_replica} does not have everywhere yet"
    )
    bench.apply(build_short_job("everywhere"))
    status = bench.wait(
        "everywhere",
        problem,
        lambda now: (now.get("waitingFor") or {}).get("message") == problem,
        JOB_SECONDS,
    )
    assert conditions_of(status)["Published"]["status"] == "True"
    assert status["state"] == "Serving"
    assert open_tree.roots()["everywhere"] == stored(status)

    # Between Published and Served the server's pod goes, and another one comes.
    (pod,) = open_tree.pods()
    cluster.kubectl("-n", NAMESPACE, "delete", "pod", pod["metadata"]["name"], "--wait=false")
    wait_until("a new pod", lambda: any(is_ready(each) for each in open_tree.pods()), 400, pause=1)
    (new,) = open_tree.pods()
    assert new["metadata"]["uid"] != pod["metadata"]["uid"]
    wait_until("its adapters", lambda: open_tree.roots().get("everywhere") == stored(status), 60, pause=1)
    assert bench.status("everywhere")["state"] == "Serving"

    load = {"lora_name": "everywhere", "lora_path": "/adapters/everywhere"}
    asked = f"ask('http://127.0.0.1:8000/v1/load_lora_adapter', {load})"
    assert run_in_pod(open_tree, NAMESPACE, "bare", asked) == 200
    status = succeeded(open_tree, "everywhere")
    assert conditions_of(status)["Served"]["message"] == f"2 replicas of {endpoint} answer with everywhere"
    check_answers(open_tree, "everywhere", "everywhere")


def build_bare_replica(tree: OpenTree) -> dict[str, Any]:
    """A pod of the small server that the model's Service counts as a replica; it finds no adapter by itself."""
    deployment, _ = installation.build_endpoint(NAMESPACE, tree.bench.parts.server)
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    container["env"] = [each for each in container["env"] if "RESOLVER" not in each["name"]]
    labels = {"app.kubernetes.io/name": MODEL}
    metadata = {"name": "bare", "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def is_ready(pod: dict[str, Any] | None) -> bool:
    return pod is not None and conditions_of(pod.get("status", {})).get("Ready", {}).get("status") == "True"


def conditions_of(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["type"]: each for each in status.get("conditions", ())}
