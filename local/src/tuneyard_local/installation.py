# SPDX-License-Identifier: Apache-2.0
"""Tuneyard on a local cluster, as a platform engineer would set it up: operator, runtime, claims, endpoint.

The demo and the end-to-end tests use this one set-up, so that what is shown is what is tested.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard_api.methods import METHODS
from tuneyard_api.yaml_io import load_all

from tuneyard_local.cluster import Cluster
from tuneyard_local.environment import build_pytorch_environment
from tuneyard_local.errors import ClusterError
from tuneyard_local.images import ENVIRONMENT_MOUNT, Image, build_image, load_images
from tuneyard_local.parts import build_parts, program
from tuneyard_local.paths import REPOSITORY, cache_root, script
from tuneyard_local.progress import Progress, wait_until
from tuneyard_local.storage import bind_folder

SYSTEM_NAMESPACE = "tuneyard-system"
RELEASE = "tuneyard-operator"
CHART = REPOSITORY / "charts" / "tuneyard-operator"
CRDS = REPOSITORY / "manifests" / "crds"
RUNTIME = "hf-cpu"
MODELS = REPOSITORY / "examples" / "models"
BASE_MODEL = "tiny-llama"
SERVICE, SERVICE_PORT = "llm", 8000
MAX_LORA_RANK = 64
_EXCERPT = 3000
"""Characters of what pods say that an error carries."""


@dataclass(frozen=True)
class BaseModel:
    """The model that jobs tune and the endpoint serves; by default the tiny Llama of tests."""

    name: str = BASE_MODEL
    """Its folder in the claim `models`, and its name at the endpoint."""
    folder: Path = MODELS
    """The folder behind the claim `models`."""
    micro_batch: int = 8
    """Sequences of one forward pass that fit into the memory of a training pod."""


TINY_LLAMA = BaseModel()


@dataclass(frozen=True)
class BuiltParts:
    """The built parts that a cluster needs; all of them are cached by content."""

    operator: Image
    trainer: Image
    server: Image
    pytorch: Path
    datasets: Path
    model: BaseModel = TINY_LLAMA


def build(progress: Progress) -> BuiltParts:
    """Build images, PyTorch's environment, helm and the docstring data set."""
    build_parts(["helm"], progress)
    operator, trainer, server = (build_image(name, progress) for name in ("operator", "trainer", "server"))
    return BuiltParts(operator, trainer, server, build_pytorch_environment(progress), build_datasets())


def build_datasets() -> Path:
    """The folder of the claim `datasets`: docstrings of the Python that runs this, read now."""
    version = ".".join(map(str, sys.version_info[:3]))
    folder = cache_root() / "datasets" / version
    argv = [sys.executable, REPOSITORY / "examples" / "docstrings" / "build.py", folder / "docstrings"]
    result = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    if result.returncode:
        raise ClusterError(f"building the docstring data set: {result.stderr.strip()}")
    return folder


def install(cluster: Cluster, parts: BuiltParts, namespace: str, progress: Progress) -> None:
    """Install everything that a FineTuneJob in `namespace` needs; returns when operator and endpoint are ready."""
    load_images(cluster, parts.operator, parts.trainer, parts.server)
    progress.say("images are on the nodes")
    install_operator(cluster, parts.operator)
    cluster.apply(build_runtime(parts.trainer, namespace, parts.model))
    make_namespace(cluster, parts, namespace)
    cluster.apply(*build_endpoint(namespace, parts.server, parts.model))
    with ThreadPoolExecutor() as pool:
        waits = [(SYSTEM_NAMESPACE, RELEASE), (namespace, SERVICE)]
        list(pool.map(lambda wait: wait_for_deployment(cluster, *wait), waits))
    progress.say("the operator and the endpoint are ready")


def install_kinds(cluster: Cluster) -> None:
    """Apply manifests/crds: the CRDs and the admission policies."""
    files = sorted(CRDS.glob("*.yaml"))
    cluster.apply(*(document.value for path in files for document in load_all(path.read_text())))


def install_operator(cluster: Cluster, image: Image) -> None:
    """Install the CRDs, then the operator by its Helm chart."""
    install_kinds(cluster)
    repository, tag = image.reference.rsplit(":", 1)
    values = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        # On one machine the network is never slow, so an operator that takes over from a dead one need not wait long.
        "settings": {"leaseSeconds": 5},
    }
    argv = [program("helm"), "--kubeconfig", cluster.kubeconfig, "upgrade", "--install", RELEASE, CHART]
    argv += ["--namespace", SYSTEM_NAMESPACE, "--create-namespace", "--values", "-"]
    result = subprocess.run(
        [str(word) for word in argv], input=json.dumps(values), capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise ClusterError(f"helm upgrade: {result.stderr.strip()}")


def build_runtime(trainer: Image, namespace: str, model: BaseModel = TINY_LLAMA) -> dict[str, Any]:
    """The FineTuneRuntime `hf-cpu`: trains on CPU, takes fake GPUs so that scheduling is real; served in `namespace`."""
    return {
        "apiVersion": "tuneyard.io/v1alpha1",
        "kind": "FineTuneRuntime",
        "metadata": {"name": RUNTIME},
        "spec": {
            "image": trainer.reference,
            "imagePullPolicy": "Never",
            "accelerator": "none",
            "acceleratorResource": "nvidia.com/gpu",
            "methods": [method.name for method in METHODS],
            "modelFamilies": ["llama"],
            "precisions": ["fp32"],
            "mounts": [{"claimName": "pytorch", "mountPath": ENVIRONMENT_MOUNT}],
            "prepareResources": {"cpu": "250m", "memory": "2Gi"},
            "trainResources": {"cpu": "500m", "memory": "3Gi"},
            "defaults": {
                "workspaceSizeGiB": 1,
                "microBatchSize": model.micro_batch,
                "registry": {"claimName": "adapters"},
            },
            "servedModels": [
                {
                    "name": model.name,
                    "base": {"pvc": {"claimName": "models", "path": model.name}},
                    "endpoint": f"http://{SERVICE}.{namespace}.svc.cluster.local:{SERVICE_PORT}",
                    "server": "vllm",
                    "listedAs": model.name,
                    "maxLoraRank": MAX_LORA_RANK,
                }
            ],
        },
    }


def make_namespace(cluster: Cluster, parts: BuiltParts, namespace: str) -> None:
    """Make a namespace under the restricted pod security profile, with its claims."""
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": namespace,
                "labels": {
                    "pod-security.kubernetes.io/enforce": "restricted",
                    "pod-security.kubernetes.io/enforce-version": "latest",
                },
            },
        }
    )
    bind_folders(cluster, parts, namespace)
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "adapters", "namespace": namespace},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
        }
    )


def bind_folders(cluster: Cluster, parts: BuiltParts, namespace: str) -> None:
    """Bind folders of this machine to claims of a namespace: PyTorch, the base model, the data set."""
    folders = {"pytorch": parts.pytorch, "models": parts.model.folder, "datasets": parts.datasets}
    for claim, folder in folders.items():
        bind_folder(cluster, namespace, claim, folder, read_only=True)


def build_endpoint(namespace: str, server: Image, model: BaseModel = TINY_LLAMA) -> list[dict[str, Any]]:
    """The small server, which serves adapters as vLLM does, and its Service.

    It finds what jobs publish in their registry itself. Its working directory is that of base models, so that the string
    of --model is what adapters call their base.
    """
    labels = {"app.kubernetes.io/name": "tuneyard-server", "app.kubernetes.io/instance": SERVICE}
    metadata = {"name": SERVICE, "namespace": namespace, "labels": labels}
    mounts = {"models": "/models", "adapters": "/adapters", "pytorch": ENVIRONMENT_MOUNT}
    health = {"path": "/health", "port": "http"}
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "server",
                "image": server.reference,
                "imagePullPolicy": "Never",
                "workingDir": mounts["models"],
                "env": [
                    {"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "true"},
                    {"name": "VLLM_LORA_RESOLVER_CACHE_DIR", "value": mounts["adapters"]},
                ],
                "args": [
                    f"--model={model.name}",
                    f"--served-model-name={model.name}",
                    f"--port={SERVICE_PORT}",
                    "--max-cpu-loras=16",
                    f"--max-lora-rank={MAX_LORA_RANK}",
                ],
                "ports": [{"name": "http", "containerPort": SERVICE_PORT}],
                "startupProbe": {"httpGet": health, "periodSeconds": 1, "failureThreshold": 300},
                "readinessProbe": {"httpGet": health, "periodSeconds": 1},
                "livenessProbe": {"httpGet": health, "periodSeconds": 10, "timeoutSeconds": 5},
                "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"memory": "3Gi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  an emptyDir of the pod
                    *({"name": name, "mountPath": path, "readOnly": True} for name, path in mounts.items()),
                ],
            }
        ],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            *(
                {"name": name, "persistentVolumeClaim": {"claimName": name, "readOnly": True}}
                for name in mounts
            ),
        ],
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "selector": labels,
                "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "http"}],
            },
        },
    ]


def wait_for_deployment(cluster: Cluster, namespace: str, name: str, seconds: float = 180) -> None:
    """Wait until a Deployment is available; raises ClusterError with its pods' own words when it is not."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"

    def is_available() -> bool:
        deployment: Mapping[str, Any] = cluster.get(path) or {}
        conditions = deployment.get("status", {}).get("conditions", ())
        return any(each["type"] == "Available" and each["status"] == "True" for each in conditions)

    try:
        wait_until(f"deployment {namespace}/{name}", is_available, seconds, pause=0.5)
    except ClusterError as error:
        labels = (cluster.get(path) or {}).get("spec", {}).get("selector", {}).get("matchLabels", {})
        chosen = ("-n", namespace, "-l", ",".join(f"{name}={value}" for name, value in labels.items()))
        pods = cluster.kubectl("describe", "pods", *chosen).stdout
        logs = cluster.kubectl("logs", *chosen, "--all-containers", "--prefix", "--tail=40").stdout
        raise ClusterError(
            f"{error}; its pods:\n{pods[-_EXCERPT:]}\nand their logs:\n{logs[-_EXCERPT:]}"
        ) from error


def kubectl_words(cluster: Cluster) -> str:
    """The beginning of a kubectl command that a person can copy."""
    return f"{script('kubectl')} --kubeconfig {cluster.kubeconfig}"
