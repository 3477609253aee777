# SPDX-License-Identifier: Apache-2.0
"""Real vLLM in a pod, from the objects that are rendered for a served model: it starts, and only the pod loads adapters."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.tiny_adapters import random_weights, write_adapter, write_model
from tuneyard.pipeline import build
from tuneyard_local import installation, vllm
from tuneyard_local.cluster import Cluster
from tuneyard_local.paths import REPOSITORY
from tuneyard_local.progress import Progress

NAMESPACE, MODEL, REPO = "served-by-vllm", "tiny", "example/random-llama"

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]


def render(folder: Path) -> list[dict[str, Any]]:
    """The objects of the served model of environments/open.yaml, made small and moved to a namespace without jobs."""
    environment = yaml.safe_load((REPOSITORY / "environments/open.yaml").read_text())
    environment["storage"]["readWriteOnce"]["className"] = "tuneyard-local"
    environment["models"][0] |= {
        "name": MODEL,
        "namespace": NAMESPACE,
        "huggingFace": {"repo": REPO, "revision": "0" * 40},
        "architecture": {"parametersBillion": 0.1, "layers": 2, "hiddenSize": 64, "keyValueHeads": 2},
        "maxSequenceLength": 512,
    }
    environment["fineTuning"]["runtimes"] = [{"name": "hf"}]
    file = folder / "open.yaml"
    file.write_text(yaml.safe_dump(environment))
    rendered = build(file, REPOSITORY).files
    texts = [each.text for each in rendered if each.path.startswith(f"manifests/open/model-{MODEL}/")]
    return [value for text in texts for value in yaml.safe_load_all(text)]


@pytest.fixture(scope="module")
def vllm_pod(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of the pod, ready."""
    progress, root = Progress(), tmp_path_factory.mktemp("vllm-pod")
    hub = root / "hub"
    write_model(hub / REPO, random_weights(0))
    write_adapter(hub / "adapters" / "one", seed=1, base_model_name_or_path=REPO)
    for folder in (root, *root.parents):
        folder.chmod(folder.stat().st_mode | 0o055)  # pods read it by their own uid
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    )
    vllm.install_vllm(cluster, NAMESPACE, render(root), hub, progress)
    installation.wait_for_deployment(cluster, NAMESPACE, MODEL, 600)
    progress.say("vLLM answers in its pod")
    (found,) = cluster.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
    yield found["metadata"]["name"]
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def ask_from_outside(cluster: Cluster, pod: str, path: str, body: object = None) -> tuple[int, Any]:
    address = cluster.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}")["status"]["podIP"]
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://{address}:8000{path}", data, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def load_from_inside(cluster: Cluster, pod: str, body: dict[str, Any]) -> str:
    script = f"""
import json, urllib.request
request = urllib.request.Request("http://127.0.0.1:8000/v1/load_lora_adapter", json.dumps({body!r}).encode(), {{"Content-Type": "application/json"}})
print(urllib.request.urlopen(request).status)
"""
    done = cluster.kubectl("-n", NAMESPACE, "exec", pod, "-c", "vllm", "--", "python3", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_rendered_objects_serve_adapters_that_the_pod_itself_loads(
    cluster: Cluster, vllm_pod: str
) -> None:
    status, models = ask_from_outside(cluster, vllm_pod, "/v1/models")
    assert (status, [(row["id"], row["root"]) for row in models["data"]]) == (200, [(MODEL, REPO)])
    load = {"lora_name": "one", "lora_path": "/hub/adapters/one", "load_inplace": True}
    assert ask_from_outside(cluster, vllm_pod, "/v1/load_lora_adapter", load)[0] == 403
    complete = {"model": "one", "prompt": "the quick", "max_tokens": 8, "temperature": 0}
    assert ask_from_outside(cluster, vllm_pod, "/v1/completions", complete)[0] == 404
    assert load_from_inside(cluster, vllm_pod, load) == "200"
    status, answer = ask_from_outside(cluster, vllm_pod, "/v1/completions", complete)
    assert status == 200
    base = ask_from_outside(cluster, vllm_pod, "/v1/completions", complete | {"model": MODEL})[1]
    assert answer["choices"][0]["text"] != base["choices"][0]["text"]
    assert ask_from_outside(cluster, vllm_pod, "/v1/unload_lora_adapter", {"lora_name": "one"})[0] == 403
