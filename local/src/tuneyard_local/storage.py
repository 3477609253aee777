# SPDX-License-Identifier: Apache-2.0
"""Claims on a cluster whose nodes share one disk, backed by new or existing folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuneyard_local.cluster import Cluster
from tuneyard_local.errors import ClusterError
from tuneyard_local.parts import program

STORAGE_CLASS = "tuneyard-local"
PROVISIONER = "tuneyard.io/local-folder"
USER = "volume-provisioner"


def build_storage_objects() -> list[dict[str, Any]]:
    """The default StorageClass and the rights of the program behind it."""
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate",
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": USER},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:persistent-volume-provisioner",
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
        },
    ]


def start_provisioner(cluster: Cluster, namespaces: str) -> None:
    """Start the program that makes a folder for each claim."""
    cluster.folder.volumes.mkdir()
    cluster.apply(*build_storage_objects())
    words = [
        f"-kubeconfig={cluster.folder.kubeconfig(USER)}",
        f"-root={cluster.folder.volumes}",
        f"-name={PROVISIONER}",
    ]
    cluster.processes.start(USER, [program("node-agents"), "volume-provisioner", *words], namespaces)


def build_folder_volume(namespace: str, claim: str, folder: Path, *, read_only: bool) -> list[dict[str, Any]]:
    """A PersistentVolume of a folder of this machine, and the claim that alone may bind it."""
    if not folder.is_absolute():
        raise ClusterError(f"folder of claim {namespace}/{claim}: an absolute path is needed (got {folder})")
    modes = ["ReadOnlyMany"] if read_only else ["ReadWriteMany"]
    name = f"folder-{namespace}-{claim}"
    size = {"storage": "1Gi"}  # hostPath does not enforce a size, but the API requires one.
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": size,
                "accessModes": modes,
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": namespace,
                    "name": claim,
                },
                "hostPath": {"path": str(folder), "type": "Directory"},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": namespace},
            "spec": {
                "accessModes": modes,
                "storageClassName": "",
                "volumeName": name,
                "resources": {"requests": size},
            },
        },
    ]


def bind_folder(cluster: Cluster, namespace: str, claim: str, folder: Path, *, read_only: bool) -> None:
    """Offer a folder of this machine (a model, a data set, PyTorch) as a claim; its files outlive the cluster.

    A pod that mounts a ReadOnlyMany claim must say `readOnly: true`: the API server does not do it for
    hostPath volumes. Raises ClusterError when the folder is missing.
    """
    if not folder.is_dir():
        raise ClusterError(f"folder of claim {namespace}/{claim}: {folder} is not there")
    cluster.apply(*build_folder_volume(namespace, claim, folder, read_only=read_only))


def folder_behind(cluster: Cluster, namespace: str, claim: str) -> Path | None:
    """The folder of this machine that a claim is bound to; None while there is none."""
    found = cluster.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}")
    name = (found or {"spec": {}})["spec"].get("volumeName")
    volume = cluster.get(f"/api/v1/persistentvolumes/{name}") if name else None
    return Path(volume["spec"]["hostPath"]["path"]) if volume else None
