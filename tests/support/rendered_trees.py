# SPDX-License-Identifier: Apache-2.0
"""The rendered objects of a committed environment on real nodes: jobs, their namespace and real vLLM for its model.

What is not as in the file is what a local cluster has in other places: images, storage classes, a hub and a store of S3
that answer here, a small model, and a runtime that trains on CPU. Objects of kinds that are not installed are left out.
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
from support.registry.s3_stores import Store

MODEL, REPO = "tiny-llama", "example/tiny-llama"
START_SECONDS = 600
_MODEL_FILES = ("*.json", "*.jinja", "*.safetensors")
_ABSENT = ("kueue.x-k8s.io/", "scheduling.volcano.sh/", "monitoring.coreos.com/")
"""API groups that the cluster of real nodes does not have."""


@dataclass(frozen=True)
class Setting:
    """What is taken of a committed environment."""

    environment: str
    """Name of the environment."""
    jobs: str
    """Its namespace of jobs."""
    models: str
    """The namespace of its vLLM model."""
    replicas: int = 1
    """Pods of that model."""
    store: Store | None = None
    """Registry in S3, where the environment has one."""

    @property
    def runtime(self) -> str:
        """Not a name of the file: FineTuneRuntimes are of the whole cluster, and other tests have one of that name."""
        return f"{self.environment}-cpu"

    @property
    def endpoint(self) -> str:
        return f"http://{MODEL}.{self.models}.svc.cluster.local:8000"


@dataclass(frozen=True)
class Replica:
    """One vLLM, asked by the address of its pod."""

    pod: str
    address: str

    def ask(self, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        return ask(f"http://{self.address}:8000{path}", body)

    def answer(self, model: str, prompt: str, max_tokens: int) -> str:
        """A greedy completion, stripped of white space at its ends."""
        body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
        status, answer = self.ask("/v1/completions", body)
        assert status == 200, answer
        return str(answer["choices"][0]["text"]).strip()

    def roots(self) -> dict[str, str]:
        """What it lists: the folder that each name was loaded from."""
        return {row["id"]: row["root"] for row in self.ask("/v1/models")[1]["data"]}


@dataclass(frozen=True)
class RenderedTree:
    """The namespaces of a setting with its served model, which is ready."""

    bench: Bench
    """Where jobs are applied: the setting's namespace of jobs."""
    setting: Setting

    @property
    def cluster(self) -> Cluster:
        return self.bench.cluster

    def pods(self) -> list[dict[str, Any]]:
        """The server's pods, those of its Deployment alone, that are not on their way out."""
        selector = f"app.kubernetes.io/name={MODEL},pod-template-hash"
        pods = Bench(self.cluster, self.bench.parts, self.setting.models).list("pods", selector)
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def replicas(self) -> list[Replica]:
        return [Replica(pod["metadata"]["name"], pod["status"]["podIP"]) for pod in self.pods()]

    def starts(self) -> dict[str, int]:
        """How often each container of the server has started again, by pod and container."""
        return {
            f"{pod['metadata']['name']}/{each['name']}": each["restartCount"]
            for pod in self.pods()
            for each in pod["status"]["containerStatuses"]
        }

    def roots(self) -> dict[str, str]:
        """What the one replica lists; see `Replica`."""
        (replica,) = self.replicas()
        return replica.roots()

    def samples(self, job: str) -> list[dict[str, Any]]:
        """What base and tuned model answered in the job's own evaluation."""
        folder = folder_behind(self.cluster, self.bench.namespace, f"{job}-workspace")
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


def host_of(cluster: Cluster) -> str:
    """The address of this machine that pods reach."""
    return Addresses(Network(cluster.plan.pods or "")).host


@contextmanager
def standing(bench: Bench, root: Path, setting: Setting) -> Iterator[RenderedTree]:
    """Everything that a job of the setting meets, applied and ready; `bench` has the operator. Taken away at the end."""
    cluster, progress = bench.cluster, Progress()
    hub_folder = root / "hub"
    (hub_folder / REPO).mkdir(parents=True)
    for pattern in _MODEL_FILES:
        for path in (installation.MODELS / MODEL).glob(pattern):
            shutil.copyfile(path, hub_folder / REPO / path.name)
    root.chmod(0o755)  # pods read it by their own uid
    with running_hub(host_of(cluster)) as hub:
        hub.repositories["models", REPO] = {
            path.name: path.read_bytes() for path in (hub_folder / REPO).iterdir()
        }
        rendered = render(root, bench.parts, hub, setting)
        cluster.apply(*rendered["namespaces"])
        namespaces = sorted({setting.jobs, setting.models})
        for namespace in namespaces:
            wait_for_account(cluster, namespace)
            if setting.store is not None:
                cluster.apply(build_registry_secret(setting.store, namespace))
        installation.bind_folders(cluster, bench.parts, setting.jobs)
        cluster.apply(*rendered["fine-tuning"])
        vllm.install_vllm(cluster, setting.models, rendered[f"model-{MODEL}"], hub_folder, progress)
        installation.wait_for_deployment(cluster, setting.models, MODEL, START_SECONDS)
        tree = RenderedTree(Bench(cluster, bench.parts, setting.jobs), setting)
        wait_until("all replicas", lambda: all(map(is_ready, tree.pods())), START_SECONDS, pause=1)
        assert len(tree.replicas()) == setting.replicas
        wait_for_quotas(cluster, setting.jobs)
        progress.say(f"{setting.replicas} x vLLM answers in its pod")
        yield tree
        for namespace in namespaces:
            cluster.kubectl("delete", "namespace", namespace, "--wait=false")
        cluster.kubectl("delete", "finetuneruntime", setting.runtime)


def wait_for_account(cluster: Cluster, namespace: str) -> None:
    """Waits for the account of a namespace's pods."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    wait_until("the namespace's account", lambda: cluster.get(path) is not None, 120)


def wait_for_quotas(cluster: Cluster, namespace: str) -> None:
    """Waits until all quotas were counted once: Kubernetes refuses what a quota counts until then."""
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"

    def are_counted() -> bool:
        quotas = (cluster.get(path) or {}).get("items") or []
        return all(each["spec"]["hard"].keys() <= each["status"].get("used", {}).keys() for each in quotas)

    wait_until("the quotas' first count", are_counted, START_SECONDS, pause=1)


def is_ready(pod: dict[str, Any] | None) -> bool:
    return pod is not None and conditions_of(pod.get("status", {})).get("Ready", {}).get("status") == "True"


def conditions_of(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["type"]: each for each in status.get("conditions", ())}


def build_registry_secret(store: Store, namespace: str) -> dict[str, Any]:
    """The Secret that the rendered list of secrets asks for."""
    metadata = {"name": "adapter-registry", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(store.credentials)}


def render(
    folder: Path, parts: installation.BuiltParts, hub: Hub, setting: Setting
) -> dict[str, list[dict[str, Any]]]:
    """The rendered objects by component, with all that a job of the namespace and its server need."""
    source = REPOSITORY / "environments" / f"{setting.environment}.yaml"
    environment = yaml.safe_load(source.read_text())
    registries = environment.get("registries", {})
    environment["registries"] = {
        **{key: registries[key] for key in ("airGapped", "charts", "models") if key in registries},
        "operatorImage": parts.operator.reference,
        "trainerImage": parts.trainer.reference,
        "huggingFace": hub.address,
    }
    for kind in environment["storage"].values():
        kind["className"] = STORAGE_CLASS
    (model,) = (each for each in environment["models"] if "huggingFace" in each)
    model.pop("gpuProduct", None)
    model |= {
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
        "replicas": setting.replicas,
    }
    tuning = environment["fineTuning"]
    if setting.store is not None:
        tuning["registryS3"] |= {"endpoint": setting.store.endpoint, "region": "us-east-1"}
    tuning["runtimes"] = [
        {
            "name": setting.runtime,
            "accelerator": "none",
            "spec": {
                "acceleratorResource": "nvidia.com/gpu",
                "precisions": ["fp32"],
                "mounts": [{"claimName": "pytorch", "mountPath": ENVIRONMENT_MOUNT}],
                "prepareResources": {"cpu": "250m", "memory": "2Gi"},
                "trainResources": {"cpu": "500m", "memory": "3Gi"},
                "defaults": {"workspaceSizeGiB": 1, "microBatchSize": 8},
            },
        }
    ]
    file = folder / source.name
    file.write_text(yaml.safe_dump(environment))
    return _chosen_objects(file, setting)


def _chosen_objects(file: Path, setting: Setting) -> dict[str, list[dict[str, Any]]]:
    """What the setting needs of the rendered tree, by component; of several namespaces of jobs its own alone."""
    namespaces = {setting.jobs, setting.models}
    tree: dict[str, list[dict[str, Any]]] = {}
    for each in build(file, REPOSITORY).files:
        parent, _, component = str(Path(each.path).parent).rpartition("/")
        wanted = {"namespaces", "fine-tuning", f"model-{MODEL}"}
        if parent != f"manifests/{setting.environment}" or component not in wanted:
            continue
        for value in yaml.safe_load_all(each.text):
            metadata = value["metadata"]
            place = metadata["name"] if component == "namespaces" else metadata.get("namespace", setting.jobs)
            if place in namespaces and not value["apiVersion"].startswith(_ABSENT):
                tree.setdefault(component, []).append(value)
    return tree
