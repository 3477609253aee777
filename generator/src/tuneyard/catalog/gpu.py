# SPDX-License-Identifier: Apache-2.0
"""GPUs: the GPU Operator, and how pods get GPUs from it: device plugin, dynamic resource allocation, or what is there."""

from typing import TYPE_CHECKING

from tuneyard.catalog.component import Component, Json, Need

if TYPE_CHECKING:
    from tuneyard.stack import Stack

RUNTIME_PATHS = {
    "k3s": ("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", "/run/k3s/containerd/containerd.sock"),
    "rke2": ("/var/lib/rancher/rke2/agent/etc/containerd/config.toml", "/run/k3s/containerd/containerd.sock"),
}
"""Where containerd keeps configuration and socket, if not in the usual places."""


def _gpu_operator(stack: "Stack") -> Json:
    """Value paths: the chart's values.yaml at v26.7.0.

    https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/getting-started.html (chart customisation).
    """
    gpus = stack.environment.gpus
    by_plugin = stack.providers["gpu"].name == "device-plugin" if stack.has("gpu") else True
    values: Json = {
        # Argo CD applies and upgrades the chart's CRDs; the hook Job would run at every sync.
        "operator": {"upgradeCRD": False},
        "driver": {"enabled": gpus.driver == "operator"},
        "toolkit": {"enabled": gpus.toolkit == "operator"},
        "devicePlugin": {"enabled": by_plugin},
        "cdi": {"enabled": True},
        "mig": {"strategy": gpus.mig.strategy if gpus.mig else "none"},
        "migManager": {"enabled": gpus.mig is not None},
        "dcgmExporter": {"enabled": True, "serviceMonitor": {"enabled": stack.has("metrics")}},
        # v26.7 can deploy a GPUCluster (preview) in place of the ClusterPolicy; never both.
        "clusterPolicy": {"deployCR": True},
        "gpuCluster": {"deployCR": False},
    }
    if gpus.driver == "operator" and gpus.driver_version:
        values["driver"]["version"] = gpus.driver_version
    if gpus.toolkit == "operator" and stack.environment.cluster.distribution in RUNTIME_PATHS:
        config, socket = RUNTIME_PATHS[stack.environment.cluster.distribution]
        values["toolkit"]["env"] = [
            {"name": "CONTAINERD_CONFIG", "value": config},
            {"name": "CONTAINERD_SOCKET", "value": socket},
        ]
    if gpus.time_slicing:
        values["devicePlugin"]["config"] = _time_slicing(gpus.time_slicing.replicas)
    if gpus.mig:
        values["migManager"]["config"] = {"default": gpus.mig.config}
    if stack.environment.registries.mirror:
        values |= {"validator": {"repository": stack.mirrored("nvcr.io/nvidia/cloud-native")}}
        values["operator"]["repository"] = stack.mirrored("nvcr.io/nvidia")
        values["driver"]["repository"] = stack.mirrored("nvcr.io/nvidia")
    return values


def _time_slicing(replicas: int) -> Json:
    """The chart refuses `create` without name and data; the key of `default` must exist in data."""
    text = (
        "version: v1\nsharing:\n  timeSlicing:\n    resources:\n"
        f"    - name: nvidia.com/gpu\n      replicas: {replicas}\n"
    )
    return {"create": True, "name": "time-slicing", "default": "shared", "data": {"shared": text}}


def _dra_driver(_: "Stack") -> Json:
    """https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/dra-intro-install.html (resources.*)."""
    return {
        "nvidiaDriverRoot": "/run/nvidia/driver",
        "gpuResourcesEnabledOverride": True,
        "resources": {"gpus": {"enabled": True}, "computeDomains": {"enabled": False}},
    }


COMPONENTS = (
    Component(
        name="gpu-operator",
        summary="NVIDIA driver, container toolkit, monitoring of GPUs",
        namespace="gpu-operator",
        provides=("gpu-driver",),
        after=("metrics",),
        values=_gpu_operator,
        privileged=True,
        ignore_differences=(
            # The CRD's default for a field that the chart no longer renders (NVIDIA/gpu-operator issue 2795).
            {"group": "nvidia.com", "kind": "ClusterPolicy", "jsonPointers": ["/spec/cdi/default"]},
            # The DRA driver's chart carries another copy of this CRD (NVIDIA/aicr issues 2547 and 2715).
            {
                "group": "apiextensions.k8s.io",
                "kind": "CustomResourceDefinition",
                "name": "computedomains.resource.nvidia.com",
                "jsonPointers": ["/spec"],
            },
        ),
    ),
    Component(
        name="device-plugin",
        summary="GPUs as the extended resource nvidia.com/gpu, by the GPU Operator's device plugin",
        provides=("gpu",),
        needs=lambda _: (Need("gpu-driver", "drivers and device plugin on the nodes"),),
    ),
    Component(
        name="dra-driver",
        summary="GPUs by dynamic resource allocation",
        namespace="nvidia-dra-driver",
        provides=("gpu", "dra"),
        needs=lambda _: (Need("gpu-driver", "drivers on the nodes"),),
        values=_dra_driver,
        privileged=True,
        ignore_differences=(
            {
                "group": "apiextensions.k8s.io",
                "kind": "CustomResourceDefinition",
                "name": "computedomains.resource.nvidia.com",
                "jsonPointers": ["/spec"],
            },
        ),
    ),
    Component(
        name="existing-gpus",
        summary="The cluster offers nvidia.com/gpu by itself",
        provides=("gpu",),
    ),
)
