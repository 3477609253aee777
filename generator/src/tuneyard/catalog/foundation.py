# SPDX-License-Identifier: Apache-2.0
"""What every other component needs: namespaces, and ExternalSecrets where the environment has a store for them."""

from tuneyard.catalog.objects import build_metadata
from tuneyard.environment.model import Environment
from tuneyard.stack.model import Component, ExpectedSecret, Json, Need, Stack

LABEL_ENVIRONMENT = "tuneyard.io/environment"


def namespaces_of(stack: Stack) -> dict[str, str]:
    """Namespace -> pod security profile that it enforces."""
    profiles: dict[str, str] = {}
    for component in stack.components:
        if component.is_rendered() and component.namespace:
            profile = "privileged" if component.privileged else "baseline"
            profiles[component.namespace] = (
                "privileged" if "privileged" in (profile, profiles.get(component.namespace)) else profile
            )
    for tuning in stack.environment.fine_tuning.namespaces:
        profiles[tuning.name] = "restricted"
    profiles.pop(stack.environment.argocd.namespace, None)
    return dict(sorted(profiles.items()))


def _namespaces(stack: Stack) -> list[Json]:
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": build_metadata(
                name,
                keep=True,
                labels={
                    LABEL_ENVIRONMENT: stack.environment.name,
                    "pod-security.kubernetes.io/enforce": profile,
                },
            ),
        }
        for name, profile in namespaces_of(stack).items()
    ]


def _has_store(environment: Environment) -> bool:
    return environment.secrets.provider == "external-secrets" and environment.secrets.store is not None


def _template(secret: ExpectedSecret) -> Json:
    labels = {"metadata": {"labels": dict(secret.labels)}} if secret.labels else {}
    return {"type": secret.type, **labels}


def _external_secrets(stack: Stack) -> list[Json]:
    """Fields: external-secrets.io/v1 ExternalSecret (https://external-secrets.io/latest/api/externalsecret/)."""
    store = stack.environment.secrets.store
    if store is None:
        return []
    prefix = f"{store.prefix}/" if store.prefix else ""
    return [
        {
            "apiVersion": "external-secrets.io/v1",
            "kind": "ExternalSecret",
            "metadata": build_metadata(secret.name, secret.namespace),
            "spec": {
                "refreshInterval": "1h",
                "secretStoreRef": {"kind": store.kind, "name": store.name},
                "target": {"name": secret.name, "template": _template(secret)},
                "data": [
                    {"secretKey": key, "remoteRef": {"key": f"{prefix}{secret.name}", "property": key}}
                    for key in secret.keys
                ],
            },
        }
        for secret in stack.secrets()
    ]


COMPONENTS = (
    Component(
        name="namespaces",
        summary="Namespaces of the environment, with their pod security profiles",
        namespace="",
        provides=("namespaces",),
        objects=_namespaces,
        when=lambda _: True,
        keeps_data=True,
    ),
    Component(
        name="secrets",
        summary="ExternalSecrets for every secret that the environment expects",
        namespace="",
        provides=("secrets",),
        needs=lambda _: (Need("namespaces", "secrets live in them"),),
        objects=_external_secrets,
        when=_has_store,
    ),
)
