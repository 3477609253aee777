# SPDX-License-Identifier: Apache-2.0
"""A server of Argo Workflows for NVIDIA's evaluator alone.

NVIDIA's guide sets the server's login to `server`, which asks nobody for a token. Such a server is open to whoever reaches
it. This one has rights on workflows of the evaluator's namespace only, and a NetworkPolicy lets only pods of that namespace
reach it. People log in to the other server.
"""

from tuneyard_api.pod_security import CONTAINER_SECURITY, POD_SECURITY
from tuneyard_workflows.accounts import build_rights

from tuneyard.catalog.objects import build_metadata
from tuneyard.stack.model import Component, Json, Need, Service, Stack

EXECUTOR = "argo-workflows-executor"
NEMO, ARGO = "nemo", "argo"
SERVES_EVALUATOR = "evaluator-workflows"
SERVER, PORT = "argo-server-of-evaluator", 2746
_LABEL = {"app.kubernetes.io/name": SERVER}
_OWN = ["create", "delete", "get", "list", "patch", "update", "watch"]
_READ = ["get", "list", "watch"]


def _objects(stack: Stack) -> list[Json]:
    """Account, server and Service, NetworkPolicy, and the rights in both namespaces."""
    image = next(image for image in stack.pin("argo-workflows").deploys if "/argocli:" in image)
    rights = (
        (ARGO, [{"apiGroups": [""], "resources": ["configmaps"], "verbs": _READ}]),
        (
            NEMO,
            [
                {"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": _OWN},
                {"apiGroups": ["argoproj.io"], "resources": ["workflowtemplates", "cronworkflows"], "verbs": _READ},
                {"apiGroups": [""], "resources": ["pods", "pods/log", "events"], "verbs": _READ},
            ],
        ),
    )  # fmt: skip
    objects: list[Json] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": build_metadata(SERVER, ARGO)},
        _deployment(stack.mirrored(image)),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": build_metadata(SERVER, ARGO, labels=_LABEL),
            "spec": {
                "selector": dict(_LABEL),
                "ports": [{"name": "web", "port": PORT, "protocol": "TCP", "targetPort": "web"}],
            },
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": build_metadata(SERVER, ARGO),
            "spec": {
                "podSelector": {"matchLabels": dict(_LABEL)},
                "policyTypes": ["Ingress"],
                "ingress": [
                    {
                        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NEMO}}}],
                        "ports": [{"port": PORT, "protocol": "TCP"}],
                    }
                ],
            },
        },
    ]  # fmt: skip
    for where, rules in rights:
        objects += build_rights(build_metadata(SERVER, where), rules, ARGO)
    return objects


def _deployment(image: str) -> Json:
    words = ["server", "--auth-mode=server", "--secure=true", "--namespaced", f"--managed-namespace={NEMO}"]
    container = {
        "name": "server",
        "image": image,
        # The chart's ConfigMap has the name of its release.
        "args": [*words, "--configmap=argo-workflows-workflow-controller-configmap"],
        "ports": [{"name": "web", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {"tcpSocket": {"port": "web"}, "periodSeconds": 20},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": dict(CONTAINER_SECURITY),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  a path in the container
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": build_metadata(SERVER, ARGO, labels=_LABEL),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": dict(_LABEL)},
            "template": {
                "metadata": {"labels": dict(_LABEL)},
                "spec": {
                    "serviceAccountName": SERVER,
                    "securityContext": dict(POD_SECURITY),
                    "containers": [container],
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                },
            },
        },
    }


COMPONENTS = (
    Component(
        name="argo-server-of-evaluator",
        summary="Argo Workflows' server for the evaluator, which sends no token",
        namespace=ARGO,
        provides=(SERVES_EVALUATOR,),
        needs=lambda _: (Need("workflows", "the settings of its controller"),),
        objects=_objects,
        services=lambda _: {SERVES_EVALUATOR: Service(SERVER, PORT, "https")},
    ),
)
