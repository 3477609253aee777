# SPDX-License-Identifier: Apache-2.0
"""The rendered objects of environments/open.yaml on real nodes: jobs, their namespace and real vLLM for its model.

What is not as in the file is what a local cluster has in other places: images, storage classes, a hub that answers here,
a small model, and a runtime that trains on CPU. The objects of Kueue are left out, as no Kueue is there.
"""

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tuneyard.pipeline import build
from tuneyard_local import installation, vllm
from tuneyard_local.cluster import Cluster
from tuneyard_local.images import ENVIRONMENT_MOUNT
from tuneyard_local.network import Addresses, Network
from tuneyard_local.paths import REPOSITORY
from tuneyard_local.progress import Progress, wait_until
from tuneyard_local.storage import STORAGE_CLASS, folder_behind

from support.bench import Bench
from support.hub import COMMIT, Hub, running_hub

ENVIRONMENT = REPOSITORY / "environments" / "open.yaml"
NAMESPACE = "fine-tuning"
MODEL, REPO = "tiny-llama", "example/tiny-llama"
RUNTIME = "open-cpu"
"""Not `hf-cpu`: FineTuneRuntimes are of the whole cluster, and other tests have one of that name."""
START_SECONDS = 600
_MODEL_FILES = ("*.json", "*.jinja", "*.safetensors")


@dataclass(frozen=True)
class OpenTree:
    """The namespace of `open` with its served model, which is ready."""

    bench: Bench
    """For jobs in that namespace."""

    @property
    def cluster(self) -> Cluster:
        return self.bench.cluster

    def pods(self) -> list[dict[str, Any]]:
        """The server's pods, those of its Deployment alone, that are not on their way out."""
        pods = self.bench.list("pods", f"app.kubernetes.io/name={MODEL},pod-template-hash")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def starts(self) -> dict[str, int]:
        """How often each container of the server has started again, by pod and container."""
        return {
            f"{pod['metadata']['name']}/{each['name']}": each["restartCount"]
            for pod in self.pods()
            for each in pod["status"]["containerStatuses"]
        }

    def ask(self, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON of the one vLLM, asked by the address of its pod."""
        (pod,) = self.pods()
        return ask(f"http://{pod['status']['podIP']}:8000{path}", body)

    def answer(self, model: str, prompt: str, max_tokens: int) -> str:
        """A greedy completion, stripped of white space at its ends."""
        body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
        status, answer = self.ask("/v1/completions", body)
        assert status == 200, answer
        return str(answer["choices"][0]["text"]).strip()

    def roots(self) -> dict[str, str]:
        """What the server lists: the folder that each name was loaded from."""
        return {row["id"]: row["root"] for row in self.ask("/v1/models")[1]["data"]}

    def samples(self, job: str) -> list[dict[str, Any]]:
        """What base and tuned model answered in the job's own evaluation."""
        folder = folder_behind(self.cluster, NAMESPACE, f"{job}-workspace")
        assert folder
        text = (folder / "evaluation/samples.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


def ask(url: str, body: object = None) -> tuple[int, Any]:
    """Status and JSON of a request; GET without a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@contextmanager
def standing(bench: Bench, root: Path) -> Iterator[OpenTree]:
    """Everything of `open` that a job meets, applied and ready; `bench` has the operator. Taken away at the end."""
    cluster, progress = bench.cluster, Progress()
    hub_folder = root / "hub"
    (hub_folder / REPO).mkdir(parents=True)
    for pattern in _MODEL_FILES:
        for path in (installation.MODELS / MODEL).glob(pattern):
            shutil.copyfile(path, hub_folder / REPO / path.name)
    root.chmod(0o755)  # pods read it by their own uid
    host = Addresses(Network(cluster.plan.pods or "")).host
    with running_hub(host) as hub:
        hub.repositories["models", REPO] = {
            path.name: path.read_bytes() for path in (hub_folder / REPO).iterdir()
        }
        tree = render(root, bench.parts, hub)
        cluster.apply(*tree["namespaces"])
        account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"
        wait_until("the namespace's account", lambda: cluster.get(account) is not None, 30)
        installation.bind_folders(cluster, bench.parts, NAMESPACE)
        cluster.apply(*tree["fine-tuning"])
        vllm.install_vllm(cluster, NAMESPACE, tree[f"model-{MODEL}"], hub_folder, progress)
        installation.wait_for_deployment(cluster, NAMESPACE, MODEL, START_SECONDS)
        progress.say("vLLM answers in its pod")
        yield OpenTree(Bench(cluster, bench.parts, NAMESPACE))
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
        cluster.kubectl("delete", "finetuneruntime", RUNTIME)


def render(folder: Path, parts: installation.BuiltParts, hub: Hub) -> dict[str, list[dict[str, Any]]]:
    """The rendered objects by component, with all that a job of the namespace and its server need."""
    environment = yaml.safe_load(ENVIRONMENT.read_text())
    environment["registries"] = {
        "operatorImage": parts.operator.reference,
        "trainerImage": parts.trainer.reference,
        "huggingFace": hub.address,
    }
    for kind in environment["storage"].values():
        kind["className"] = STORAGE_CLASS
    environment["models"][0] |= {
        "name": MODEL,
        "huggingFace": {"repo": REPO, "revision": COMMIT},
        "architecture": {
            "parametersBillion": 0.0033,
            "layers": 6,
            "hiddenSize": 192,
            "keyValueHeads": 3,
            "headSize": 64,
        },
        "maxSequenceLength": 512,
    }
    (runtime,) = (each for each in environment["fineTuning"]["runtimes"] if each["name"] == "hf-cpu")
    runtime |= {
        "name": RUNTIME,
        "spec": {
            "acceleratorResource": "nvidia.com/gpu",
            "precisions": ["fp32"],
            "mounts": [{"claimName": "pytorch", "mountPath": ENVIRONMENT_MOUNT}],
            "prepareResources": {"cpu": "250m", "memory": "2Gi"},
            "trainResources": {"cpu": "500m", "memory": "3Gi"},
            "defaults": {"workspaceSizeGiB": 1, "microBatchSize": 8},
        },
    }
    environment["fineTuning"]["runtimes"] = [runtime]
    file = folder / ENVIRONMENT.name
    file.write_text(yaml.safe_dump(environment))
    tree: dict[str, list[dict[str, Any]]] = {}
    for each in build(file, REPOSITORY).files:
        parent, _, component = str(Path(each.path).parent).rpartition("/")
        if parent != "manifests/open" or component not in {"namespaces", "fine-tuning", f"model-{MODEL}"}:
            continue
        objects = [value for value in yaml.safe_load_all(each.text) if "kueue" not in value["apiVersion"]]
        tree.setdefault(component, []).extend(objects)
    tree["namespaces"] = [each for each in tree["namespaces"] if each["metadata"]["name"] == NAMESPACE]
    return tree
