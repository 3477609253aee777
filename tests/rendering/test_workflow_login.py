# SPDX-License-Identifier: Apache-2.0
"""The login of Argo Workflows' server as rendered: tokens, single sign-on, and what is open to NVIDIA's evaluator alone."""

from typing import Any

import pytest
from support.forms.rendered import server_values
from tuneyard.catalog import catalog, pins
from tuneyard.catalog.workflows_evaluator import SERVER
from tuneyard.checks import check_stack
from tuneyard.environment.model import Environment
from tuneyard.stack.model import Stack
from tuneyard.stack.resolve import resolve

Json = dict[str, Any]
SIGN_ON = {"issuer": "https://login.example.com/realms/lab", "url": "https://workflows.example.com/"}
LAB: Json = {
    "name": "t",
    "preset": "nemo-microservices",
    "argocd": {"repoUrl": "https://git.example.com/g.git"},
    "storage": {"readWriteOnce": {"className": "block"}, "readWriteMany": {"className": "files"}},
    "gpus": {"nodes": [{"product": "NVIDIA-L40S", "nodes": 2, "gpusPerNode": 4, "memoryGiB": 48}]},
    "fineTuning": {
        "runtimes": [{"name": "hf"}],
        "namespaces": [{"name": "team-a", "groups": ["a", "the as"]}, {"name": "team-b", "groups": ["b"]}, {"name": "team-c"}],
    },
}  # fmt: skip


def stack(**changes: Any) -> Stack:
    environment = Environment.model_validate({**LAB, **changes})
    return resolve(environment, catalog(environment), pins())


def values_of(of: Stack) -> Json:
    component = of.component("argo-workflows")
    assert component
    assert component.values
    return component.values(of)


def objects_of(of: Stack, name: str) -> list[Json]:
    component = of.component(name)
    assert component
    assert component.objects
    return list(component.objects(of))


def warned(of: Stack, rule: str) -> list[str]:
    return [str(finding) for finding in check_stack(of) if finding.rule == rule]


def test_without_an_issuer_people_bring_a_token_of_kubernetes() -> None:
    for server in (server_values(), values_of(stack())["server"]):
        assert server["authModes"] == ["client"]
        assert server["secure"] is True
        assert "sso" not in server


def test_a_single_sign_on_has_its_secret_by_reference_and_rights_by_group() -> None:
    of = stack(workflows={"singleSignOn": SIGN_ON})
    server = values_of(of)["server"]
    assert server["authModes"] == ["client", "sso"]
    sso = server["sso"]
    assert sso["issuer"] == SIGN_ON["issuer"]
    assert sso["redirectUrl"] == "https://workflows.example.com/oauth2/callback"
    assert sso["clientSecret"] == {"name": "argo-server-sso", "key": "client-secret"}
    assert sso["rbac"]["enabled"] is True
    assert "insecureSkipVerify" not in sso
    expected = {(s.namespace, s.name): s.keys for s in of.secrets()}
    assert expected["argo", "argo-server-sso"] == ("client-id", "client-secret")
    objects = objects_of(of, "workflow-templates")
    rules = {
        (o["metadata"]["namespace"], o["metadata"]["name"]): o["metadata"]["annotations"]["workflows.argoproj.io/rbac-rule"]
        for o in objects
        if o["kind"] == "ServiceAccount" and o["metadata"].get("annotations")
    }  # fmt: skip
    assert rules == {
        ("argo", "workflow-login"): '"a" in groups || "the as" in groups || "b" in groups',
        ("team-a", "workflow-user"): '"a" in groups || "the as" in groups',
        ("team-b", "workflow-user"): '"b" in groups',
    }
    tokens = {o["metadata"]["name"] for o in objects if o["kind"] == "Secret"}
    assert tokens < set(sso["rbac"]["secretWhitelist"])
    assert not [o for o in objects if o["kind"] == "Secret" and ("data" in o or "stringData" in o)]
    assert not warned(of, "sign-on-has-groups")


def test_people_submit_and_answer_and_delete_nothing() -> None:
    for namespace in ("team-a", "team-b", "team-c"):
        role = next(
            o for o in objects_of(stack(), "workflow-templates")
            if o["kind"] == "Role" and o["metadata"]["name"] == "workflow-user" and o["metadata"]["namespace"] == namespace
        )  # fmt: skip
        verbs = {verb for rule in role["rules"] for verb in rule["verbs"]}
        resources = {resource for rule in role["rules"] for resource in rule["resources"]}
        assert verbs == {"create", "get", "list", "patch", "update", "watch"}
        assert "secrets" not in resources
        changed = {r for rule in role["rules"] if "create" in rule["verbs"] for r in rule["resources"]}
        assert changed == {"workflows"}


def test_the_evaluator_has_a_server_of_its_own_that_only_its_namespace_reaches() -> None:
    of = stack()
    by_kind = {o["kind"]: o for o in objects_of(of, SERVER) if o["kind"] in ("Deployment", "NetworkPolicy")}
    policy = by_kind["NetworkPolicy"]["spec"]
    labels = by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert [rule["from"] for rule in policy["ingress"]] == [
        [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "nemo"}}}]
    ]
    roles = {o["metadata"]["namespace"]: o["rules"] for o in objects_of(of, SERVER) if o["kind"] == "Role"}
    assert roles.keys() == {"argo", "nemo"}
    assert not [o for o in objects_of(of, SERVER) if o["kind"].startswith("Cluster")]
    resources = {resource for rules in roles.values() for rule in rules for resource in rule["resources"]}
    assert "secrets" not in resources
    (evaluator,) = (o for o in objects_of(of, "nemo-evaluator") if o["kind"] == "NemoEvaluator")
    assert evaluator["spec"]["argoWorkflows"]["endpoint"] == f"https://{SERVER}.argo.svc.cluster.local:2746"


def test_a_server_for_the_evaluator_is_only_where_the_evaluator_is() -> None:
    assert stack(preset="open", components={"argo-workflows": {"enabled": True}}).component(SERVER) is None


@pytest.mark.parametrize(
    ("changes", "rule", "words"),
    [
        ({"cluster": {"networkPolicies": False}}, "evaluator-server-is-guarded", "sends no token"),
        ({}, "sign-on-has-groups", "is used by a single sign-on only"),
        (
            {"workflows": {"singleSignOn": SIGN_ON}, "fineTuning": {**LAB["fineTuning"], "namespaces": [{"name": "team-a"}]}},
            "sign-on-has-groups",
            "nobody can do anything after this login",
        ),
    ],
    ids=["a network that anybody may use", "groups of nobody", "a login for nobody"],
)  # fmt: skip
def test_what_leaves_the_login_without_use_or_guard_is_warned_of(
    changes: Json, rule: str, words: str
) -> None:
    assert any(words in said for said in warned(stack(**changes), rule))


@pytest.mark.parametrize("group", ['a" in groups || true || "', "a\\", "", "'a'", "a\nb"])
def test_a_group_is_a_name_and_no_expression(group: str) -> None:
    namespaces = [{"name": "team-a", "groups": [group]}]
    with pytest.raises(ValueError, match="groups"):
        stack(fineTuning={**LAB["fineTuning"], "namespaces": namespaces})
