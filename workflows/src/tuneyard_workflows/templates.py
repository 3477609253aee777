# SPDX-License-Identifier: Apache-2.0
"""All that one namespace of jobs gets: every WorkflowTemplate, and the account that their pods run as."""

from tuneyard_api.names import GROUP, JOB_PLURAL, LABEL_MANAGED_BY

from tuneyard_workflows.fine_tune import build_fine_tune
from tuneyard_workflows.form import ACCOUNT, Json, Offer
from tuneyard_workflows.pipeline import build_pipeline
from tuneyard_workflows.stages import build_stages
from tuneyard_workflows.sweep import build_sweep


def build_templates(offer: Offer) -> list[Json]:
    """The WorkflowTemplates of a namespace. The pipeline moves a name, which not every registry lets it."""
    pipeline = [build_pipeline(offer)] if offer.promotes else []
    return [build_fine_tune(offer), build_sweep(offer), *pipeline, *build_stages(offer)]


def build_account(namespace: str) -> list[Json]:
    """The account of these workflows' pods: it may create, read and patch FineTuneJobs, and report workflow results."""
    metadata = {"name": ACCOUNT, "namespace": namespace, "labels": {LABEL_MANAGED_BY: "tuneyard"}}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": metadata,
            "rules": [
                {"apiGroups": [GROUP], "resources": [JOB_PLURAL], "verbs": ["create", "get", "patch"]},
                {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]},
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
        },
    ]  # fmt: skip
