# SPDX-License-Identifier: Apache-2.0
"""Accounts of a namespace: the one that pods of workflows run as, and the one that people submit forms as."""

import json
from collections.abc import Sequence

from tuneyard_api.names import GROUP, JOB_PLURAL, LABEL_MANAGED_BY

from tuneyard_workflows.form import ACCOUNT, Json

USER, LOGIN = "workflow-user", "workflow-login"
"""Account of people in a namespace of jobs, and the one without any right that a single sign-on begins with."""
_ARGO, _RBAC = "argoproj.io", "rbac.authorization.k8s.io"
_READ = ["get", "list", "watch"]


def build_account(namespace: str) -> list[Json]:
    """The account of these workflows' pods: it may create, read and patch FineTuneJobs, and report workflow results."""
    rules = [
        {"apiGroups": [GROUP], "resources": [JOB_PLURAL], "verbs": ["create", "get", "patch"]},
        {"apiGroups": [_ARGO], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]},
    ]
    return _with_rights(_account(ACCOUNT, namespace), rules)


def build_user(namespace: str, groups: Sequence[str] = ()) -> list[Json]:
    """The account of people who submit forms; members of `groups` work as this account after a single sign-on.

    It submits, stops and answers workflows, and reads what they do. It deletes nothing, and reads no Secret.
    """
    rules = [
        {"apiGroups": [_ARGO], "resources": ["workflows"], "verbs": ["create", "patch", "update", *_READ]},
        {"apiGroups": [_ARGO], "resources": ["workflowtemplates"], "verbs": _READ},
        {"apiGroups": [GROUP], "resources": [JOB_PLURAL], "verbs": _READ},
        {"apiGroups": [""], "resources": ["events", "pods", "pods/log"], "verbs": _READ},
    ]
    if not groups:
        return _with_rights(_account(USER, namespace), rules)
    # Argo takes the account of the namespace only where it goes before the one of the login.
    return [*_with_rights(_account(USER, namespace, groups, 1), rules), _token(USER, namespace)]


def build_login(namespace: str, groups: Sequence[str]) -> list[Json]:
    """The account that members of any of `groups` begin with; `namespace` is the server's."""
    return [_account(LOGIN, namespace, groups, 0), _token(LOGIN, namespace)]


def _account(name: str, namespace: str, groups: Sequence[str] = (), precedence: int = 0) -> Json:
    metadata: Json = {"name": name, "namespace": namespace, "labels": {LABEL_MANAGED_BY: "tuneyard"}}
    if groups:
        rule = " || ".join(f"{json.dumps(group)} in groups" for group in groups)
        metadata["annotations"] = {
            "workflows.argoproj.io/rbac-rule": rule,
            "workflows.argoproj.io/rbac-rule-precedence": str(precedence),
        }
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def _token(account: str, namespace: str) -> Json:
    """The Secret that Kubernetes fills with a token of the account, which Argo's server reads after a single sign-on."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": f"{account}.service-account-token",
            "namespace": namespace,
            "labels": {LABEL_MANAGED_BY: "tuneyard"},
            "annotations": {"kubernetes.io/service-account.name": account},
        },
    }


def _with_rights(account: Json, rules: list[Json]) -> list[Json]:
    metadata = {key: value for key, value in account["metadata"].items() if key != "annotations"}
    return [account, *build_rights(metadata, rules, metadata["namespace"])]


def build_rights(metadata: Json, rules: list[Json], home: str) -> list[Json]:
    """A Role with `metadata`, and its binding to the ServiceAccount of the same name in namespace `home`."""
    name = metadata["name"]
    return [
        {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": home}],
        },
    ]
