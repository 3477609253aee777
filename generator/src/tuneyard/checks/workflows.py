# SPDX-License-Identifier: Apache-2.0
"""Checks that nobody gets into Argo Workflows' server without a login."""

import re
from collections.abc import Iterator
from typing import Any

from tuneyard_api.problems import Path

from tuneyard.catalog.workflows_evaluator import SERVES_EVALUATOR
from tuneyard.findings import Finding, Severity
from tuneyard.stack.model import Stack

_NAME = "argo-workflows"
_SAFE_MODES = ("client", "sso")
_FLAG = re.compile(r"^--(auth-mode|secure|insecure)\b")


def workflows_have_a_login(stack: Stack) -> Iterator[Finding]:
    """Values of Argo Workflows leave its login on: no mode that asks nobody for a token, and no token in plain text."""
    if stack.component(_NAME) is None:
        return
    values = stack.options(_NAME).values
    for path, value, why, hint in _openings(values):
        place: Path = ("components", _NAME, "values", *path)
        yield Finding("workflows-has-login", why, place, repr(value) if not isinstance(value, bool) else str(value).lower(), hint)  # fmt: skip


def sign_on_is_for_somebody(stack: Stack) -> Iterator[Finding]:
    """Single sign-on has groups that may submit forms, and groups have a single sign-on."""
    sign_on = stack.environment.workflows.single_sign_on
    entries = stack.environment.fine_tuning.namespaces
    if sign_on and (stack.component(_NAME) is None or not any(entry.groups for entry in entries)):
        why = "nobody can do anything after this login"
        hint = "groups of a namespace in fineTuning.namespaces, with Argo Workflows in the environment"
        yield Finding("sign-on-has-groups", why, ("workflows", "singleSignOn"), None, hint, Severity.WARNING)
    for index, entry in enumerate(entries):
        if entry.groups and sign_on is None:
            path: Path = ("fineTuning", "namespaces", index, "groups")
            yield Finding(
                "sign-on-has-groups",
                "is used by a single sign-on only",
                path,
                None,
                "workflows.singleSignOn: ...",
                Severity.WARNING,
            )


def the_server_of_the_evaluator_is_guarded(stack: Stack) -> Iterator[Finding]:
    """The evaluator's own server of Argo Workflows asks for no token, so the cluster's network must keep others away."""
    if stack.has(SERVES_EVALUATOR) and not stack.environment.cluster.network_policies:
        yield Finding(
            "evaluator-server-is-guarded",
            "NVIDIA's evaluator sends no token, and without network policies every pod may start workflows in its namespace",
            ("cluster", "networkPolicies"),
            None,
            "true, with a network that enforces policies",
            Severity.WARNING,
        )


def _openings(values: Any) -> Iterator[tuple[Path, Any, str, str]]:
    """Path, value, what is wrong, and what to write instead."""
    server = _mapping(_mapping(values).get("server"))
    open_mode = "lets everybody in who reaches the server"
    modes = server.get("authModes")
    for index, mode in enumerate(modes if isinstance(modes, list) else ()):
        if mode not in _SAFE_MODES:
            yield ("server", "authModes", index), mode, open_mode, "client, or workflows.singleSignOn"
    if server.get("authMode", "") not in ("", *_SAFE_MODES):
        yield ("server", "authMode"), server["authMode"], open_mode, "leaving it out"
    if server.get("secure", True) is not True:
        yield ("server", "secure"), server["secure"], "tokens would travel in plain text", "true"
    words = server.get("extraArgs")
    for index, word in enumerate(words if isinstance(words, list) else ()):
        if _FLAG.match(str(word)):
            yield ("server", "extraArgs", index), word, "changes the login behind the chart's back", "server.authModes"  # fmt: skip
    variables = server.get("extraEnv")
    for index, entry in enumerate(variables if isinstance(variables, list) else ()):
        if _mapping(entry).get("name") in ("ARGO_AUTH_MODE", "ARGO_SECURE"):
            yield ("server", "extraEnv", index, "name"), entry["name"], "changes the login behind the chart's back", "server.authModes"  # fmt: skip
    sso = _mapping(server.get("sso"))
    if _mapping(sso.get("rbac")).get("enabled", True) is not True:
        why = "gives everybody who can log in all rights of the server"
        yield ("server", "sso", "rbac", "enabled"), sso["rbac"]["enabled"], why, "true"
    if sso.get("insecureSkipVerify", False) is not False:
        yield ("server", "sso", "insecureSkipVerify"), sso["insecureSkipVerify"], "trusts whoever answers as the issuer", "false"  # fmt: skip


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


CHECKS = (workflows_have_a_login, sign_on_is_for_somebody, the_server_of_the_evaluator_is_guarded)
