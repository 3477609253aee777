# SPDX-License-Identifier: Apache-2.0
"""Argo Workflows, for the evaluator and for people's own pipelines."""

from tuneyard.stack.model import Component, Json, Service, Stack

EXECUTOR = "argo-workflows-executor"
NEMO = "nemo"


def _values(stack: Stack) -> Json:
    """https://github.com/argoproj/argo-helm/blob/main/charts/argo-workflows/README.md.

    Server and executor are as NVIDIA's installer sets them up for the evaluator.
    """
    used = [c.namespace for c in stack.components if c.namespace == NEMO]
    tuning = [entry.name for entry in stack.environment.fine_tuning.namespaces]
    values: Json = {
        "fullnameOverride": "argo-workflows",
        "crds": {"install": True, "keep": True},
        "server": {"authModes": ["server"], "secure": True, "servicePort": 2746},
        "controller": {"workflowNamespaces": sorted({*used, *tuning}) or ["argo"]},
        "workflow": {"serviceAccount": {"create": True, "name": EXECUTOR}, "rbac": {"create": True}},
    }
    if used and "nemo-evaluator" in {c.name for c in stack.components}:
        secrets = [{"name": stack.environment.secrets.ngc_pull}]
        values["controller"]["workflowDefaults"] = {"spec": {"imagePullSecrets": secrets}}
    if stack.environment.registries.mirror:
        values["images"] = {"pullSecrets": []}
        for part, image in (
            ("server", "argocli"),
            ("controller", "workflow-controller"),
            ("executor", "argoexec"),
        ):
            registry = f"{stack.environment.registries.mirror}/quay.io"
            values.setdefault(part, {})["image"] = {"registry": registry, "repository": f"argoproj/{image}"}
    return values


COMPONENTS = (
    Component(
        name="argo-workflows",
        summary="Workflows",
        namespace="argo",
        provides=("workflows",),
        after=("metrics",),
        values=_values,
        services=lambda _: {"workflows": Service("argo-workflows-server", 2746, "https")},
        keeps_data=True,
    ),
)
