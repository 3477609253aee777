# SPDX-License-Identifier: Apache-2.0
"""Reads the facts of a live cluster once: version, GPUs, storage classes, installed components."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

CRD_OF = {
    "argo-workflows": "workflows.argoproj.io",
    "cert-manager": "certificates.cert-manager.io",
    "cloudnative-pg": "clusters.postgresql.cnpg.io",
    "gpu-operator": "clusterpolicies.nvidia.com",
    "kube-prometheus-stack": "prometheuses.monitoring.coreos.com",
    "kueue": "clusterqueues.kueue.x-k8s.io",
    "leader-worker-set": "leaderworkersets.leaderworkerset.x-k8s.io",
    "nemo-operator": "nemotrainingjobs.nvidia.com",
    "nim-operator": "nimservices.apps.nvidia.com",
    "tuneyard-crds": "finetunejobs.tuneyard.io",
    "volcano": "queues.scheduling.volcano.sh",
}
"""The CRD by which a component is recognised."""
EXTERNAL_SECRETS = "externalsecrets.external-secrets.io"
GPU = "nvidia.com/gpu"
_LABEL = re.compile(r"(.*?)(-SHARED|-MIG-.*)?", re.DOTALL)


class Reader(Protocol):
    """The part of the client that facts are read with."""

    def get(self, path: str) -> Any:
        """The object at a path, or None."""

    def items(self, path: str) -> list[dict[str, Any]]:
        """Everything in the list at a path."""


@dataclass(frozen=True)
class GpuNodesFound:
    """A group of equal nodes."""

    product: str
    """The label `nvidia.com/gpu.product` without what sharing adds to it."""
    gpus_per_node: int
    """GPUs, or parts of them where MIG cuts them."""
    memory_gib: int
    nodes: int
    sharing: str = ""
    """Suffix of the label: `-SHARED` or `-MIG-1g.10gb`."""
    replicas: int = 1
    """Pods that share a GPU."""


@dataclass(frozen=True)
class ClusterFacts:
    """The facts of one cluster."""

    kubernetes: str
    """Minor version, such as 1.34."""
    gpus: tuple[GpuNodesFound, ...] = ()
    storage_classes: tuple[str, ...] = ()
    default_storage_class: str = ""
    installed: Mapping[str, str] = field(default_factory=dict)
    """Component -> the Argo CD Application that tracks it, or nothing."""
    crds: frozenset[str] = frozenset()
    argocd: str = ""
    """Version of Argo CD's controller; empty: not found."""


def gather(reader: Reader, argocd_namespace: str = "argocd") -> ClusterFacts:
    """Read a cluster."""
    version = reader.get("/version")
    crds = {
        entry["metadata"]["name"]: entry["metadata"]
        for entry in reader.items("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    }
    classes = reader.items("/apis/storage.k8s.io/v1/storageclasses")
    path = f"/apis/apps/v1/namespaces/{argocd_namespace}/statefulsets/argocd-application-controller"
    return ClusterFacts(
        kubernetes=".".join(re.findall(r"\d+", version["gitVersion"])[:2]),
        gpus=gpu_nodes(reader.items("/api/v1/nodes")),
        storage_classes=tuple(sorted(entry["metadata"]["name"] for entry in classes)),
        default_storage_class=next(
            (
                entry["metadata"]["name"]
                for entry in classes
                if entry["metadata"].get("annotations", {}).get("storageclass.kubernetes.io/is-default-class")
                == "true"
            ),
            "",
        ),
        installed={name: tracker(crds[crd]) for name, crd in sorted(CRD_OF.items()) if crd in crds},
        crds=frozenset(crds),
        argocd=argocd_version(reader.get(path)),
    )


def bare_product(label: str) -> str:
    """The product in the label `nvidia.com/gpu.product`, without what sharing adds."""
    return _LABEL.fullmatch(label)[1]  # type: ignore[index]


def gpu_nodes(nodes: Iterable[Mapping[str, Any]]) -> tuple[GpuNodesFound, ...]:
    """Nodes with GPUs by product, count and memory, from the labels of GPU feature discovery (memory in MiB)."""
    found: Counter[tuple[str, int, int, str, int]] = Counter()
    for node in nodes:
        labels = node["metadata"].get("labels", {})
        product, sharing = _LABEL.fullmatch(labels.get(f"{GPU}.product", "unknown")).groups("")  # type: ignore[union-attr]
        offered = int(node.get("status", {}).get("capacity", {}).get(GPU) or 0)
        counted = int(labels.get(f"{GPU}.count") or 0)
        # A shared GPU is offered as often as it is shared; one that is cut into unlike parts is not offered at all.
        gpus = counted or offered if sharing else offered or counted
        if gpus:
            memory = round(int(labels.get(f"{GPU}.memory", 0)) / 1024)
            found[product, gpus, memory, sharing, int(labels.get(f"{GPU}.replicas") or 1)] += 1
    return tuple(
        GpuNodesFound(product, gpus, memory, count, sharing, replicas)
        for (product, gpus, memory, sharing, replicas), count in sorted(found.items())
    )


def tracker(metadata: Mapping[str, Any]) -> str:
    """The Application that an object belongs to, by annotation or label; empty: none."""
    tracking = metadata.get("annotations", {}).get("argocd.argoproj.io/tracking-id", "")
    labels = metadata.get("labels", {})
    return str(tracking.partition(":")[0] or labels.get("argocd.argoproj.io/instance", ""))


def argocd_version(controller: Mapping[str, Any] | None) -> str:
    """The version, such as `3.2.11`, from the controller's image or label."""
    if controller is None:
        return ""
    images = [c["image"] for c in controller["spec"]["template"]["spec"]["containers"]]
    label = controller["metadata"].get("labels", {}).get("app.kubernetes.io/version", "")
    found = re.search(r":v?(\d+\.\d+\.\d+)", " ".join(images)) or re.search(r"^v?(\d+\.\d+\.\d+)", label)
    return found[1] if found else ""
