# SPDX-License-Identifier: Apache-2.0
"""The rendered objects of environments/open.yaml, up to real vLLM that answers with the adapter of a ten-line job."""

import json
from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest
from support.bench import Bench
from support.rendered_trees import (
    MODEL,
    REPO,
    RenderedTree,
    Setting,
    conditions_of,
    is_ready,
    standing,
)
from support.served_jobs import (
    build_job,
    build_short_job,
    check_answers,
    run,
    stored,
    succeeded,
    wait_for_message,
)
from tuneyard_local import installation
from tuneyard_local.progress import wait_until
from tuneyard_local.vllm import missing_for_vllm

NAMESPACE = "fine-tuning"
OPEN = Setting("open", jobs=NAMESPACE, models=NAMESPACE)
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
def open_tree(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RenderedTree]:
    if reason := missing_for_vllm():
        pytest.skip(reason)
    with standing(bench, tmp_path_factory.mktemp("open"), OPEN) as tree:
        yield tree


@pytest.fixture(scope="module")
def ten_lines(open_tree: RenderedTree) -> dict[str, Any]:
    """The status of the ten-line job, which has succeeded."""
    return run(open_tree, build_job(open_tree, "docstrings"))


def run_in_pod(tree: RenderedTree, namespace: str, pod: str, expression: str) -> Any:
    """The value of a Python expression in a pod, where `ask` tells the status of an answer."""
    script = f"{ASK}print(json.dumps({expression}))"
    done = tree.cluster.kubectl("-n", namespace, "exec", pod, "-c", "server", "--", "python3", "-c", script)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_ten_line_job_ends_in_an_adapter_that_vllm_answers_with(
    open_tree: RenderedTree, ten_lines: dict[str, Any]
) -> None:
    result = ten_lines["result"]
    assert {each["status"] for each in ten_lines["conditions"]} == {"True"}
    assert result["modelName"] == "docstrings"
    assert result["endpoint"] == OPEN.endpoint
    assert 0 <= result["servedAfterSeconds"] <= 30
    roots = open_tree.roots()
    assert (roots[MODEL], roots["docstrings"]) == (REPO, stored(ten_lines))
    check_answers(open_tree, "docstrings", "docstrings")


def test_a_pod_of_another_namespace_can_ask_but_not_load(bench: Bench, open_tree: RenderedTree) -> None:
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
    open_tree: RenderedTree, ten_lines: dict[str, Any]
) -> None:
    before = open_tree.starts()
    second = run(open_tree, build_short_job(open_tree, "second", lora={"rank": 8}))
    roots = open_tree.roots()
    assert (roots["docstrings"], roots["second"]) == (stored(ten_lines), stored(second))
    check_answers(open_tree, "second", "second")

    publish = {"adapterName": "second", "replace": True}
    newer = run(open_tree, build_short_job(open_tree, "newer", publish=publish, lora={"rank": 4}))
    roots = open_tree.roots()
    assert (roots["docstrings"], roots["second"]) == (stored(ten_lines), stored(newer))
    assert stored(newer) != stored(second)
    # The same prompts as before, so that nothing that was kept of the old version may answer.
    check_answers(open_tree, "newer", "second")
    assert open_tree.starts() == before
    assert median(each["result"]["servedAfterSeconds"] for each in (ten_lines, second, newer)) <= 5


@pytest.fixture
def bare_replica(open_tree: RenderedTree) -> Iterator[str]:
    """The address of a second replica, beside which no adapter-sync runs: our small server, as two vLLMs take 6 GB."""
    cluster, path = open_tree.cluster, f"/api/v1/namespaces/{NAMESPACE}/pods/bare"
    cluster.apply(build_bare_replica(open_tree))
    wait_until("the bare replica", lambda: is_ready(cluster.get(path)), 120, pause=1)
    yield f"{cluster.get(path)['status']['podIP']}:8000"
    cluster.kubectl("-n", NAMESPACE, "delete", "pod", "bare", "--wait=false")


@pytest.mark.long
def test_every_replica_must_have_the_adapter_and_a_new_pod_gets_it_again(
    open_tree: RenderedTree, bare_replica: str
) -> None:
    bench, cluster = open_tree.bench, open_tree.cluster
    endpoint = OPEN.endpoint
    problem = (
        f"1 of 2 replicas of {endpoint} does not serve everywhere:"
        f" {bare_replica} does not have everywhere yet"
    )
    bench.apply(build_short_job(open_tree, "everywhere"))
    status = wait_for_message(open_tree, "everywhere", problem)
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


def build_bare_replica(tree: RenderedTree) -> dict[str, Any]:
    """A pod of the small server that the model's Service counts as a replica; it finds no adapter by itself."""
    deployment, _ = installation.build_endpoint(NAMESPACE, tree.bench.parts.server)
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    container["env"] = [each for each in container["env"] if "RESOLVER" not in each["name"]]
    labels = {"app.kubernetes.io/name": MODEL}
    metadata = {"name": "bare", "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
