# SPDX-License-Identifier: Apache-2.0
"""The chart without helm: its role holds exactly the verbs that the operator uses, its schema exactly its values."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from tuneyard_operator.adapters.resources import CLIENT_VERBS, OWNER_VERBS, RESOURCES, WATCHED_KINDS
from tuneyard_operator.reconcile.leadership import LEASE
from tuneyard_operator.settings import Settings

CHART = Path(__file__).parents[2] / "charts" / "tuneyard-operator"
Rights = dict[tuple[str, str], set[str]]


def rules_of(template: str) -> list[dict[str, Any]]:
    text = re.sub(r"\{\{.*?\}\}", "x", (CHART / "templates" / template).read_text())
    return [rule for body in yaml.safe_load_all(text) for rule in body.get("rules", ())]


def rights_of_the_role() -> Rights:
    rights: Rights = {}
    for rule in rules_of("clusterrole.yaml") + rules_of("role.yaml"):
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                rights.setdefault((group, resource), set()).update(rule["verbs"])
    return rights


def rights_that_are_used() -> Rights:
    rights: Rights = {}
    for kind, verbs in CLIENT_VERBS.items():
        rights.setdefault(RESOURCES[kind].right, set()).update(verbs)
    for kind in WATCHED_KINDS:
        rights.setdefault(RESOURCES[kind].right, set()).update({"list", "watch"})
    for verbs in OWNER_VERBS.values():
        rights[RESOURCES["FineTuneJob"].group, "finetunejobs/finalizers"] = set(verbs)
    return rights


def test_the_role_is_exactly_what_the_operator_uses() -> None:
    assert rights_of_the_role() == rights_that_are_used()


def test_leases_are_written_in_the_operator_s_own_namespace_and_only_its_own() -> None:
    assert "leases" not in str(rules_of("clusterrole.yaml"))
    named = [rule["verbs"] for rule in rules_of("role.yaml") if rule.get("resourceNames") == [LEASE]]
    assert named == [["get", "update"]]


def test_the_role_reads_no_secret_and_has_no_wildcard() -> None:
    for (group, resource), verbs in rights_of_the_role().items():
        assert "*" not in {group, resource, *verbs}
        assert resource != "secrets"


def test_members_of_a_namespace_may_use_jobs_by_the_roles_that_they_have() -> None:
    text = re.sub(r"\{\{-? (if|end|include).*?\}\}", "", (CHART / "templates/aggregated.yaml").read_text())
    roles = {
        label.rpartition("/")[2]: body["rules"]
        for body in yaml.safe_load_all(text)
        for label, value in body["metadata"]["labels"].items()
        if value == "true"
    }
    assert set(roles) == {"aggregate-to-view", "aggregate-to-edit", "aggregate-to-admin"}
    assert {"create", "delete", "patch"} <= set(roles["aggregate-to-edit"][0]["verbs"])
    assert roles["aggregate-to-view"][0]["verbs"] == ["get", "list", "watch"]
    assert yaml.safe_load((CHART / "values.yaml").read_text())["aggregateRoles"] is True


def keys(values: Mapping[str, Any], schema: Mapping[str, Any], path: str = "") -> Iterable[str]:
    """Paths of values that the schema does not know, and of the schema's that the values lack."""
    known = schema.get("properties")
    if known is None or schema.get("additionalProperties") is not False:
        return
    for name in {*values, *known} - {"global"}:
        if name not in known or name not in values:
            yield f"{path}{name}"
        elif isinstance(values[name], Mapping):
            yield from keys(values[name], known[name], f"{path}{name}.")


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["additionalProperties"] is False
    assert list(keys(values, schema)) == []


def test_the_chart_s_settings_are_the_operator_s_with_the_same_defaults() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())["settings"]
    snake = {
        re.sub(r"[A-Z]", lambda match: "_" + match[0].lower(), name): value for name, value in values.items()
    }
    fixed_in_a_pod = {"host", "port", "identity"}
    assert snake == {
        name: field.default for name, field in Settings.model_fields.items() if name not in fixed_in_a_pod
    }
    Settings(**snake)


def test_the_crds_are_not_in_the_chart() -> None:
    assert not (CHART / "crds").exists()
    assert not [path for path in CHART.rglob("*.yaml") if "CustomResourceDefinition" in path.read_text()]
