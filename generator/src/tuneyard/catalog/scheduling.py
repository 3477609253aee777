# SPDX-License-Identifier: Apache-2.0
"""Gangs, queues and groups of pods: Volcano, Kueue, LeaderWorkerSet."""

from tuneyard_api.yaml_io import dump

from tuneyard.stack.model import Component, Json, Stack


def _volcano(stack: Stack) -> Json:
    """basic.*, https://github.com/volcano-sh/volcano/blob/master/installer/helm/chart/volcano/values.yaml."""
    mirror = stack.environment.registries.mirror
    return {"basic": {"image_registry": f"{mirror}/docker.io"}} if mirror else {}


KUEUE_CONFIGURATION: Json = {
    "apiVersion": "config.kueue.x-k8s.io/v1beta2",
    "kind": "Configuration",
    "health": {"healthProbeBindAddress": ":8081"},
    "metrics": {"bindAddress": ":8443"},
    "webhook": {"port": 9443},
    "leaderElection": {"leaderElect": True, "resourceName": "c1f6bfd2.kueue.x-k8s.io"},
    "controller": {
        "groupKindConcurrency": {
            "Job.batch": 5,
            "Workload.kueue.x-k8s.io": 10,
            "LocalQueue.kueue.x-k8s.io": 5,
            "ClusterQueue.kueue.x-k8s.io": 5,
            "ResourceFlavor.kueue.x-k8s.io": 1,
        }
    },
    "clientConnection": {"qps": 300, "burst": 500},
    "integrations": {"frameworks": ["batch/job"]},
}
"""The chart's own configuration at 0.19.2, but for the frameworks: with the chart's list a LocalQueue called `default`
also takes the Deployments and pods of its namespace, so that served models would wait in the queue of the jobs."""


def _kueue(stack: Stack) -> Json:
    """https://github.com/kubernetes-sigs/kueue/blob/main/charts/kueue/README.md."""
    values: Json = {
        "enablePrometheus": stack.has("metrics"),
        "enableCertManager": False,
        "managerConfig": {"controllerManagerConfigYaml": dump(KUEUE_CONFIGURATION)},
    }
    if stack.environment.registries.mirror:
        repository = stack.mirrored("registry.k8s.io/kueue/kueue")
        values["controllerManager"] = {"manager": {"image": {"repository": repository}}}
    return values


def _leader_worker_set(stack: Stack) -> Json:
    """https://github.com/kubernetes-sigs/lws/blob/main/charts/lws/values.yaml."""
    values: Json = {"enablePrometheus": False, "enableCertManager": False}
    if stack.environment.registries.mirror:
        values["image"] = {"manager": {"repository": stack.mirrored("registry.k8s.io/lws/lws")}}
    return values


COMPONENTS = (
    Component(
        name="kube-scheduler",
        summary="Kubernetes' own scheduler: no gangs, no queues",
        provides=("scheduler",),
    ),
    Component(
        name="volcano",
        summary="Gang scheduling for NeMo Customizer; its webhook must answer before pods are made anywhere",
        namespace="volcano-system",
        provides=("scheduler",),
        values=_volcano,
    ),
    Component(
        name="kueue",
        summary="Queues and quotas for jobs",
        namespace="kueue-system",
        provides=("scheduler",),
        after=("metrics",),
        values=_kueue,
    ),
    Component(
        name="leader-worker-set",
        summary="Groups of pods as one replica, for models over several nodes",
        namespace="lws-system",
        provides=("lws",),
        values=_leader_worker_set,
    ),
)
