# SPDX-License-Identifier: Apache-2.0
"""Names, labels and the owner that every child of a FineTuneJob carries."""

from dataclasses import dataclass
from typing import Any

from tuneyard_api import names
from tuneyard_api.pod_contract import Stage


@dataclass(frozen=True, slots=True)
class Owner:
    """The FineTuneJob that a child belongs to: deleted with it by the garbage collector."""

    namespace: str
    name: str
    uid: str


def job_labels(owner: Owner) -> dict[str, str]:
    """Labels of every child."""
    return {
        names.LABEL_APP: "tuneyard",
        names.LABEL_INSTANCE: owner.name,
        names.LABEL_MANAGED_BY: names.FIELD_MANAGER,
        names.LABEL_JOB: owner.name,
    }


def stage_labels(owner: Owner, stage: Stage, attempt: int) -> dict[str, str]:
    """Labels of the Job and the pods of one attempt."""
    return {
        **job_labels(owner),
        names.LABEL_COMPONENT: stage.value,
        names.LABEL_STAGE: stage.value,
        names.LABEL_ATTEMPT: str(attempt),
    }


def build_metadata(owner: Owner, name: str, labels: dict[str, str], plan_digest: str) -> dict[str, Any]:
    """Metadata of a child, with its controlling owner."""
    reference = {
        "apiVersion": names.API_VERSION,
        "kind": names.JOB_KIND,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": labels,
        "annotations": {names.ANNOTATION_PLAN: plan_digest},
        "ownerReferences": [reference],
    }
