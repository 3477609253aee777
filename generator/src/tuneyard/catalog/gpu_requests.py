# SPDX-License-Identifier: Apache-2.0
"""How a pod gets GPUs in this environment (nodes and requests), and how a quota counts them, for jobs, vLLM, NIM, queues.

Sources: NVIDIA's device plugin names a part of a GPU `nvidia.com/mig-<profile>` under the strategy `mixed`; Kubernetes
counts devices of dynamic resource allocation as `<class>.deviceclass.resource.k8s.io/devices`.
"""

from tuneyard.catalog.objects import build_metadata, build_tolerations
from tuneyard.environment.models import ServedModel
from tuneyard.stack.model import Json, Stack

WHOLE_GPU = "nvidia.com/gpu"
DEVICE_CLASS = "gpu.nvidia.com"


def gpu_resource(stack: Stack) -> str | None:
    """The extended resource of a GPU (or a part of one); None where pods claim devices (DRA)."""
    if stack.has("dra"):
        return None
    mig = stack.environment.gpus.mig
    if mig is not None and mig.strategy == "mixed" and (profile := mig.only_profile):
        return f"nvidia.com/mig-{profile}"
    return WHOLE_GPU


def gpu_quota(stack: Stack, gpus: int) -> Json:
    """The entry of a ResourceQuota's `hard`."""
    resource = gpu_resource(stack)
    key = f"requests.{resource}" if resource else f"{DEVICE_CLASS}.deviceclass.resource.k8s.io/devices"
    return {key: str(gpus)}


def gpu_resources(stack: Stack, gpus: int) -> Json:
    """The GPU entries of a container's `requests` and `limits`; empty where pods claim GPUs."""
    resource = gpu_resource(stack)
    return {resource: str(gpus)} if resource else {}


def build_claim_template(name: str, namespace: str, gpus: int) -> Json:
    """A ResourceClaimTemplate (resource.k8s.io/v1, Kubernetes 1.34): each pod gets a claim of its own."""
    exactly = {"deviceClassName": DEVICE_CLASS, "allocationMode": "ExactCount", "count": gpus}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": build_metadata(name, namespace),
        "spec": {"spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}},
    }


def tolerations_of(stack: Stack, product: str | None) -> list[Json]:
    """The tolerations for the nodes that a model may run on."""
    return build_tolerations(stack.environment.gpus.taints(product))


def node_selector_of(stack: Stack, model: ServedModel) -> Json | None:
    """The label of the nodes that have the model's GPU product."""
    product = model.gpu_product
    return {"nvidia.com/gpu.product": stack.environment.gpus.label_of(product)} if product else None
