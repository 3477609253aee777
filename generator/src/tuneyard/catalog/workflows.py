# SPDX-License-Identifier: Apache-2.0
"""Argo Workflows, for the evaluator and for people's own pipelines.

Its server asks everybody for a token. The evaluator sends none, so it gets a server of its own, which is in
`workflows_evaluator`.
"""

from tuneyard.catalog.workflows_evaluator import ARGO, EXECUTOR, NEMO, SERVES_EVALUATOR
from tuneyard.stack.model import Component, ExpectedSecret, Json, Service, Stack

LOGIN_KEYS = ("client-id", "client-secret")
TOKENS = ("workflow-login.service-account-token", "workflow-user.service-account-token")
"""Secrets with the tokens of the accounts that people work as after a single sign-on; Kubernetes fills them."""


def _values(stack: Stack) -> Json:
    """https://github.com/argoproj/argo-helm/blob/main/charts/argo-workflows/README.md.

    The executor is as NVIDIA's installer sets it up for the evaluator.
    """
    used = [c.namespace for c in stack.components if c.namespace == NEMO]
    tuning = [entry.name for entry in stack.environment.fine_tuning.namespaces]
    values: Json = {
        "fullnameOverride": "argo-workflows",
        "crds": {"install": True, "keep": True},
        "server": _server(stack),
        "controller": {"workflowNamespaces": sorted({*used, *tuning}) or [ARGO]},
        "workflow": {"serviceAccount": {"create": True, "name": EXECUTOR}, "rbac": {"create": True}},
    }
    if stack.has(SERVES_EVALUATOR):
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


def _server(stack: Stack) -> Json:
    """Each request is made with the rights of who asks: by a token of Kubernetes, or by the account of a person's groups."""
    server: Json = {"authModes": ["client"], "secure": True, "servicePort": 2746}
    sign_on = stack.environment.workflows.single_sign_on
    if sign_on is None:
        return server
    id_key, secret_key = LOGIN_KEYS
    sso = {
        "enabled": True,
        "issuer": sign_on.issuer,
        "clientId": {"name": sign_on.secret, "key": id_key},
        "clientSecret": {"name": sign_on.secret, "key": secret_key},
        "redirectUrl": f"{sign_on.url.rstrip('/')}/oauth2/callback",
        # Without these rules everybody who can log in has the rights of the server.
        "rbac": {"enabled": True, "secretWhitelist": [*TOKENS, sign_on.secret]},
        "scopes": list(sign_on.scopes),
        "customGroupClaimName": sign_on.groups_claim,
        "sessionExpiry": f"{sign_on.session_hours}h",
    }
    delegated = [{"name": "SSO_DELEGATE_RBAC_TO_NAMESPACE", "value": "true"}]
    return {**server, "authModes": ["client", "sso"], "sso": sso, "extraEnv": delegated}


def _secrets(stack: Stack) -> tuple[ExpectedSecret, ...]:
    sign_on = stack.environment.workflows.single_sign_on
    if sign_on is None:
        return ()
    return (ExpectedSecret(sign_on.secret, ARGO, LOGIN_KEYS, "login to Argo Workflows at the issuer"),)


COMPONENTS = (
    Component(
        name="argo-workflows",
        summary="Workflows",
        namespace=ARGO,
        provides=("workflows",),
        after=("metrics",),
        values=_values,
        services=lambda _: {"workflows": Service("argo-workflows-server", 2746, "https")},
        secrets=_secrets,
        keeps_data=True,
    ),
)
