# SPDX-License-Identifier: Apache-2.0
"""The objects that a job owns besides Jobs: its plan's ConfigMap, its workspace's claim, and its GPU claims."""

from typing import Any

from tuneyard_api import names

from tuneyard_operator.domain.frozen import Frozen, frozen_data
from tuneyard_operator.domain.objects.metadata import Owner, build_metadata, job_labels


def build_plan_map(owner: Owner, frozen: Frozen) -> dict[str, Any]:
    """The ConfigMap that pods read job.json from."""
    name = names.plan_name(owner.name, owner.uid)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": build_metadata(owner, name, job_labels(owner), frozen.plan.digest),
        "immutable": True,
        "data": frozen_data(frozen),
    }


def build_gpu_claim_template(owner: Owner, frozen: Frozen) -> dict[str, Any]:
    """The ResourceClaimTemplate of the training pods, for a runtime with a DeviceClass (resource.k8s.io/v1)."""
    exactly = {
        "deviceClassName": frozen.runtime.device_class_name,
        "allocationMode": "ExactCount",
        "count": frozen.plan.resolved.gpus_per_node,
    }
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": build_metadata(
            owner, names.gpu_claim_name(owner.name), job_labels(owner), frozen.plan.digest
        ),
        "spec": {"spec": {"devices": {"requests": [{"name": "gpus", "exactly": exactly}]}}},
    }


def build_workspace(owner: Owner, frozen: Frozen) -> dict[str, Any]:
    """The claim that the stages share; pods of several nodes need it at once."""
    plan = frozen.plan
    usual = "ReadWriteMany" if plan.resolved.nodes > 1 else "ReadWriteOnce"
    spec: dict[str, Any] = {
        "accessModes": [plan.access_mode or usual],
        "resources": {"requests": {"storage": f"{plan.workspace_size_gib}Gi"}},
    }
    if plan.storage_class_name is not None:
        spec["storageClassName"] = plan.storage_class_name
    name = names.workspace_name(owner.name)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": build_metadata(owner, name, job_labels(owner), plan.digest),
        "spec": spec,
    }
