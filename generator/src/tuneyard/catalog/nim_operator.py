# SPDX-License-Identifier: Apache-2.0
"""The NIM Operator: reconciles NIMCache, NIMService, NIMPipeline and the NeMo objects."""

from tuneyard.stack.model import Component, ExpectedSecret, Json, Need, Stack

NAMESPACE = "nim-operator"


def _values(stack: Stack) -> Json:
    """Value paths: the chart's values.yaml at v3.1.2."""
    values: Json = {
        "operator": {
            # Argo CD applies the CRDs; the pre-upgrade Job would run at every sync.
            "upgradeCRD": False,
            # The default differs between releases, so it is always said.
            "admissionController": {
                "enabled": True,
                "tls": {"mode": "cert-manager", "certManager": {"issuerType": "selfsigned"}},
            },
        },
        "dynamo": {"enabled": False},
    }
    if stack.environment.registries.mirror:
        values["operator"]["image"] = {
            "repository": stack.mirrored("nvcr.io/nvidia/cloud-native/k8s-nim-operator"),
            "pullSecrets": [stack.environment.secrets.ngc_pull],
        }
    return values


def _secrets(stack: Stack) -> tuple[ExpectedSecret, ...]:
    if not stack.environment.registries.mirror:
        return ()
    return (build_pull_secret(stack, NAMESPACE),)


def build_pull_secret(stack: Stack, namespace: str) -> ExpectedSecret:
    """The image pull secret for nvcr.io, or for the mirror that stands in for it."""
    return ExpectedSecret(
        stack.environment.secrets.ngc_pull,
        namespace,
        (".dockerconfigjson",),
        "pulls NVIDIA's images (user $oauthtoken, password: the NGC key)",
        "kubernetes.io/dockerconfigjson",
    )


COMPONENTS = (
    Component(
        name="nim-operator",
        summary="Operator for NIM and NeMo microservices",
        namespace=NAMESPACE,
        provides=("crd:nim", "crd:nemo"),
        needs=lambda _: (
            Need("cert-manager", "its webhook's certificate; without it every NIMCache is refused"),
            Need("gpu", "it reads the labels of GPU nodes"),
        ),
        after=("lws", "metrics"),
        values=_values,
        secrets=_secrets,
        keeps_data=True,
    ),
)
