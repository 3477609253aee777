# SPDX-License-Identifier: Apache-2.0
"""What a job keeps: its plan in an immutable ConfigMap, its workspace on a claim."""

from typing import Any

from tuneyard_api import names

from tuneyard_operator.domain.build.metadata import Owner, build_metadata, job_labels
from tuneyard_operator.domain.frozen import Frozen, frozen_data


def build_plan_map(owner: Owner, frozen: Frozen) -> dict[str, Any]:
    """The ConfigMap that pods read job.json from."""
    name = names.plan_name(owner.name)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": build_metadata(owner, name, job_labels(owner), frozen.plan.digest),
        "immutable": True,
        "data": frozen_data(frozen),
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
