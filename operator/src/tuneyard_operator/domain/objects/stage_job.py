# SPDX-License-Identifier: Apache-2.0
"""One attempt of one stage: a batch/v1 Job that never retries by itself, and its Service when it spans nodes.

Retrying is the operator's decision, because only it knows the failure class; so backoffLimit is 0, and a pod is
never replaced.
"""

from typing import Any

from tuneyard_api import names
from tuneyard_api.pod_contract import Stage

from tuneyard_operator.domain.frozen import Frozen
from tuneyard_operator.domain.objects.metadata import Owner, build_metadata, stage_labels
from tuneyard_operator.domain.objects.pod import MASTER_PORT, build_pod_spec


def stage_nodes(frozen: Frozen, stage: Stage) -> int:
    """The number of pods of one attempt: only training spans nodes."""
    return frozen.plan.resolved.nodes if stage is Stage.TRAIN else 1


def build_stage_job(owner: Owner, frozen: Frozen, stage: Stage, attempt: int) -> dict[str, Any]:
    """The Job of an attempt (from 1)."""
    name = names.stage_job_name(owner.name, stage, attempt)
    labels, nodes = stage_labels(owner, stage, attempt), stage_nodes(frozen, stage)
    spec: dict[str, Any] = {
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "completions": nodes,
        "parallelism": nodes,
        "template": {
            "metadata": {"labels": labels, "annotations": {names.ANNOTATION_PLAN: frozen.plan.digest}},
            "spec": build_pod_spec(owner, frozen, stage, attempt),
        },
    }
    if stage is Stage.TRAIN:
        spec["completionMode"] = "Indexed"
    queue = frozen.spec.scheduling.queue if stage is Stage.TRAIN else None
    if queue is not None:
        # Suspended from the start: without Kueue, or while it is away, no pod gets past the queue.
        spec["suspend"], labels = True, {**labels, names.LABEL_QUEUE: queue}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": build_metadata(owner, name, labels, frozen.plan.digest),
        "spec": spec,
    }


def build_rendezvous_service(owner: Owner, frozen: Frozen, attempt: int) -> dict[str, Any]:
    """The headless Service by which the pods of a training on several nodes find index 0 before it is ready."""
    name = names.stage_job_name(owner.name, Stage.TRAIN, attempt)
    labels = stage_labels(owner, Stage.TRAIN, attempt)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": build_metadata(owner, name, labels, frozen.plan.digest),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "ports": [{"name": "rendezvous", "port": MASTER_PORT}],
            "selector": {
                label: labels[label] for label in (names.LABEL_JOB, names.LABEL_STAGE, names.LABEL_ATTEMPT)
            },
        },
    }
