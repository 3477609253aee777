# SPDX-License-Identifier: Apache-2.0
"""The Job that removes a FineTuneJob's published adapter when the FineTuneJob is deleted.

It mounts the registry and nothing else of the job, and is not owned by it: a deletion in the foreground, as Argo CD
does it, takes whatever is owned first, plan, workspace and this Job included. So it ends by itself, whatever becomes of
the operator: after some tries or a time, and is then removed by Kubernetes.
"""

from dataclasses import dataclass
from typing import Any

from tuneyard_api import names
from tuneyard_api import pod_contract as contract
from tuneyard_api.pod_security import CONTAINER_SECURITY, POD_SECURITY
from tuneyard_api.quantities import quantity_value
from tuneyard_api.runtime import FineTuneRuntimeSpec

from tuneyard_operator.domain.objects.metadata import Owner, job_labels

_COMPONENT = "unpublish"
_TRIES_AFTER_THE_FIRST = 3
_LONGEST_SECONDS = 900
_KEPT_SECONDS = 600
"""Seconds after which Kubernetes removes the Job if the operator does not."""
_CPU, _MEMORY = "100m", "256Mi"


@dataclass(frozen=True, slots=True)
class Published:
    """Where a job publishes to."""

    claim: str
    path: str
    """Path in a pod that mounts the registry."""
    plan_digest: str

    def __str__(self) -> str:
        """The place as a message names it."""
        return f"{self.path} on claim {self.claim}"


def build_unpublish_job(owner: Owner, published: Published, runtime: FineTuneRuntimeSpec) -> dict[str, Any]:
    """The unpublish Job. Its work may be repeated, so the Job controller may retry it."""
    labels = {**job_labels(owner), names.LABEL_COMPONENT: _COMPONENT}
    annotations = {names.ANNOTATION_PLAN: published.plan_digest, names.ANNOTATION_UID: owner.uid}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.unpublish_name(owner.name),
            "namespace": owner.namespace,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": {
            "backoffLimit": _TRIES_AFTER_THE_FIRST,
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": _LONGEST_SECONDS,
            "ttlSecondsAfterFinished": _KEPT_SECONDS,
            "completions": 1,
            "parallelism": 1,
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": _pod_spec(owner, published, runtime),
            },
        },
    }


def _resources(runtime: FineTuneRuntimeSpec) -> dict[str, Any]:
    """Small requests, with a CPU limit if the runtime has one: a ResourceQuota of the namespace may require it."""
    requests, limits = {"cpu": _CPU, "memory": _MEMORY}, {"memory": _MEMORY}
    most = runtime.prepare_resources.cpu_limit
    if most is not None:
        limits["cpu"] = most
        requests["cpu"] = min(most, _CPU, key=quantity_value)
    return {"requests": requests, "limits": limits}


def _pod_spec(owner: Owner, published: Published, runtime: FineTuneRuntimeSpec) -> dict[str, Any]:
    container = {
        "name": contract.CONTAINER,
        "image": runtime.image,
        "imagePullPolicy": runtime.image_pull_policy,
        "command": [*contract.UNPUBLISH, "--uid", owner.uid, published.path],
        "env": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108  an emptyDir of the pod, not a shared folder
            {"name": contract.ENV_TERMINATION_LOG, "value": contract.TERMINATION_LOG},
        ],
        "resources": _resources(runtime),
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePath": contract.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "registry", "mountPath": contract.REGISTRY_DIR},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  the same
        ],
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        "containers": [container],
        "volumes": [
            {"name": "registry", "persistentVolumeClaim": {"claimName": published.claim}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    if runtime.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in runtime.image_pull_secrets]
    return spec
