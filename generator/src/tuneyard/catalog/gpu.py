# SPDX-License-Identifier: Apache-2.0
"""The GPU Operator, and how pods get GPUs: by the device plugin, DRA, or what the cluster already has."""

from tuneyard.catalog.objects import build_tolerations, merged
from tuneyard.stack.model import Component, Json, Need, Stack

RUNTIME_PATHS = {
    "k3s": ("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", "/run/k3s/containerd/containerd.sock"),
    "rke2": ("/var/lib/rancher/rke2/agent/etc/containerd/config.toml", "/run/k3s/containerd/containerd.sock"),
}
"""Paths of containerd's configuration and socket on distributions that do not use the usual ones."""


_CONTROL_PLANE = {
    "key": "node-role.kubernetes.io/control-plane",
    "operator": "Exists",
    "effect": "NoSchedule",
}
"""A toleration of the chart's own list. It is repeated here, because our list replaces the chart's."""


def _gpu_operator(stack: Stack) -> Json:
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
    }
    if not stack.pin("gpu-operator").version.startswith("v26.3."):
        # v26.7 can deploy a GPUCluster (preview) in place of the ClusterPolicy; never both.
        values |= {"clusterPolicy": {"deployCR": True}, "gpuCluster": {"deployCR": False}}
    if gpus.driver == "operator" and gpus.driver_version:
        values["driver"]["version"] = gpus.driver_version
    if gpus.toolkit == "operator" and stack.environment.cluster.distribution in RUNTIME_PATHS:
        config, socket = RUNTIME_PATHS[stack.environment.cluster.distribution]
        values["toolkit"]["env"] = [
            {"name": "CONTAINERD_CONFIG", "value": config},
            {"name": "CONTAINERD_SOCKET", "value": socket},
        ]
    if gpus.taints():
        tolerations = build_tolerations(gpus.taints())
        values["daemonsets"] = {"tolerations": tolerations}
        values["node-feature-discovery"] = {"worker": {"tolerations": [_CONTROL_PLANE, *tolerations]}}
    if gpus.time_slicing:
        values["devicePlugin"]["config"] = _time_slicing(gpus.time_slicing.replicas)
    if gpus.mig:
        values["migManager"]["config"] = {"default": gpus.mig.config}
    if stack.environment.registries.mirror:
        values = merged(values, _mirrored_images(stack))
    return values


def _mirrored_images(stack: Stack) -> Json:
    """The operands' images in the mirror, each with its own repository; also of operands that are off."""
    plain, cloud_native, k8s = (
        {"repository": stack.mirrored(f"nvcr.io/nvidia{part}")} for part in ("", "/cloud-native", "/k8s")
    )
    nfd = {"repository": stack.mirrored("registry.k8s.io/nfd/node-feature-discovery")}
    return {
        **dict.fromkeys(
            ("operator", "validator", "devicePlugin", "gfd", "nodeStatusExporter", "sandboxDevicePlugin"),
            plain,
        ),
        **dict.fromkeys(
            ("dcgm", "migManager", "gds", "gdrcopy", "kataSandboxDevicePlugin", "ccManager"), cloud_native
        ),
        **dict.fromkeys(("toolkit", "dcgmExporter"), k8s),
        "driver": {**plain, "manager": cloud_native},
        "vgpuManager": {"driverManager": cloud_native},
        "vgpuDeviceManager": cloud_native,
        "vfioManager": {**cloud_native, "driverManager": cloud_native},
        "node-feature-discovery": {"image": nfd},
    }


def _time_slicing(replicas: int) -> Json:
    """The chart refuses `create` without name and data; the key of `default` must exist in data."""
    text = (
        "version: v1\nsharing:\n  timeSlicing:\n    resources:\n"
        f"    - name: nvidia.com/gpu\n      replicas: {replicas}\n"
    )
    return {"create": True, "name": "time-slicing", "default": "shared", "data": {"shared": text}}


def _dra_driver(stack: Stack) -> Json:
    """The chart's values.yaml on the way to 0.5.0 (0.5.0-dev); nodes that come with their driver have it at the root of the host."""
    by_operator = stack.environment.gpus.driver == "operator"
    values: Json = {
        "nvidiaDriverRoot": "/run/nvidia/driver" if by_operator else "/",
        "gpuResourcesEnabledOverride": True,
        "resources": {"gpus": {"enabled": True}, "computeDomains": {"enabled": False}},
        # A list replaces the chart's own, which has NVIDIA's taint.
        "kubeletPlugin": {"tolerations": build_tolerations(stack.environment.gpus.taints())},
    }
    if stack.environment.registries.mirror:
        values["image"] = {
            "repository": stack.mirrored("registry.k8s.io/dra-driver-nvidia/dra-driver-nvidia-gpu")
        }
    return values


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
