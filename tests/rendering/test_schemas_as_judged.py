# SPDX-License-Identifier: Apache-2.0
"""Objects and chart values are judged here as the API server and Helm judge them: one table each, put before both."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tuneyard.checks.chart_values import KeptChart, laid_over, refused_values
from tuneyard.checks.core_kinds import check_core_kinds
from tuneyard.checks.custom_kinds import add, check
from tuneyard.render.files import File
from tuneyard_api.yaml_io import dump
from tuneyard_local.cluster import Cluster
from tuneyard_local.parts import program

Json = dict[str, Any]
SHARE = {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1}
COUNT = {"type": "integer", "maximum": 8, "exclusiveMaximum": True}
PERCENT = {"x-kubernetes-int-or-string": True, "pattern": "^[0-9]+%$"}
EITHER = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
BOX = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
ONE_OF = {**BOX, "oneOf": [{"required": ["a"], "properties": {"a": {"minimum": 1}}}, {"required": ["b"]}]}
WITH_DEFAULT = {**BOX, "required": ["a"], "properties": {"a": {"type": "integer", "default": 1}}}
EMBEDDED = {
    "type": "object",
    "x-kubernetes-embedded-resource": True,
    "properties": {"spec": {"type": "object"}},
}
TEXT = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}

FIELDS: list[tuple[str, Json, Any, bool]] = [
    ("above an exclusive minimum", SHARE, 0.5, True),
    ("just above an exclusive minimum", SHARE, 0.0002, True),
    ("at an exclusive minimum", SHARE, 0, False),
    ("at a maximum", SHARE, 1, True),
    ("above a maximum", SHARE, 1.5, False),
    ("below an exclusive maximum", COUNT, 7, True),
    ("at an exclusive maximum", COUNT, 8, False),
    ("exclusive that is switched off", {**COUNT, "exclusiveMaximum": False}, 8, True),
    ("an integer below half of a minimum", {"type": "number", "minimum": 0.5}, 0, True),
    ("a fraction below a minimum", {"type": "number", "minimum": 0.5}, 0.25, False),
    ("a whole number written as a fraction", {"type": "integer"}, 3.0, True),
    ("a fraction for an integer", {"type": "integer"}, 8.5, False),
    ("a big integer", {"type": "integer", "format": "int32"}, 3_000_000_000, False),
    ("a multiple of a fraction", {"type": "number", "multipleOf": 0.1}, 0.3, True),
    ("no multiple of a fraction", {"type": "number", "multipleOf": 0.1}, 0.35, False),
    ("a multiple", {"type": "integer", "multipleOf": 8}, 16, True),
    ("no multiple", {"type": "integer", "multipleOf": 8}, 12, False),
    ("a fraction of half", {"type": "number", "multipleOf": 0.5}, 1.5, True),
    ("a whole number of halves", {"type": "number", "multipleOf": 0.5}, 2, False),
    ("null where that is allowed", {**BOX, "nullable": True}, None, True),
    ("null where that is not allowed is dropped", BOX, None, True),
    ("null in an object is dropped", BOX, {"a": None}, True),
    ("null in a map is dropped", TEXTS, {"a": None}, True),
    ("null in a list stays", {"type": "array", "items": TEXT}, [None], False),
    ("null in a list where that is allowed", {"type": "array", "items": {**TEXT, "nullable": True}}, [None], True),
    ("null takes the default", {"type": "object", "required": ["a"], "properties": WITH_DEFAULT["properties"]}, {"a": None}, True),
    ("a required field that has a default", WITH_DEFAULT, {}, True),
    ("a required field that has none", {**BOX, "required": ["a"]}, {}, False),
    ("an integer or a text: integer", EITHER, 5, True),
    ("an integer or a text: text", EITHER, "50%", True),
    ("an integer or a text: fraction", EITHER, 1.5, False),
    ("text that fits the pattern of an integer or a text", PERCENT, "50%", True),
    ("text that does not", PERCENT, "x", False),
    ("an integer that has no pattern to fit", PERCENT, 5, True),
    ("pattern: the end of the text", {**TEXT, "pattern": "^[a-z]+$"}, "abc\n", False),
    ("pattern: another script's digits", {**TEXT, "pattern": r"^\d+$"}, "\u0661\u0662", False),
    ("pattern: a class of Unicode", {**TEXT, "pattern": r"^\pL+$"}, "\u0645\u0627", True),
    ("an unknown field", BOX, {"c": 1}, False),
    ("an unknown field of an object without fields", {"type": "object"}, {"c": 1}, False),
    ("any field where all are kept", {"type": "object", "x-kubernetes-preserve-unknown-fields": True}, {"c": None}, True),
    ("an alternative names other fields than are given", ONE_OF, {"a": 1}, True),
    ("an alternative that restricts", ONE_OF, {"a": 0}, False),
    ("two alternatives at once", ONE_OF, {"a": 1, "b": 1}, False),
    ("an embedded object", EMBEDDED, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}}, True),
    ("an enum", {**TEXT, "enum": ["a"]}, "b", False),
    ("format date-time", {**TEXT, "format": "date-time"}, "2026-11-28T10:00:00Z", True),
    ("format date-time, no zone", {**TEXT, "format": "date-time"}, "2026-11-28T10:00:00", False),
    ("format date", {**TEXT, "format": "date"}, "2026-02-30", False),
    ("format ipv4", {**TEXT, "format": "ipv4"}, "10.0.0.256", False),
    ("format ipv4, zeros in front", {**TEXT, "format": "ipv4"}, "10.0.0.01", True),
    ("format ipv6", {**TEXT, "format": "ipv6"}, "fd00::1", True),
    ("format cidr", {**TEXT, "format": "cidr"}, "10.0.0.0/33", False),
    ("format cidr, a host's bits set", {**TEXT, "format": "cidr"}, "10.0.0.1/8", True),
    ("format uri", {**TEXT, "format": "uri"}, "http://a b", False),
    ("format uri, a path", {**TEXT, "format": "uri"}, "/a", True),
    ("format uri, a word", {**TEXT, "format": "uri"}, "a", False),
    ("format email", {**TEXT, "format": "email"}, "a@", False),
    ("format email, with a name", {**TEXT, "format": "email"}, "A <a@example.com>", True),
    ("format hostname", {**TEXT, "format": "hostname"}, "-a.example.com", False),
    ("format uuid", {**TEXT, "format": "uuid"}, "123e4567e89b12d3a456426614174000", True),
    ("format byte", {**TEXT, "format": "byte"}, "YQ=", False),
    ("format duration", {**TEXT, "format": "duration"}, "1h30m", True),
    ("format duration, words", {**TEXT, "format": "duration"}, "22 minutes", True),
    ("format duration, no unit", {**TEXT, "format": "duration"}, "22", False),
    ("format mac", {**TEXT, "format": "mac"}, "01:23:45:67:89", False),
    ("format hexcolor", {**TEXT, "format": "hexcolor"}, "#ff", False),
    ("a format that nobody knows", {**TEXT, "format": "colour"}, "x", True),
]  # fmt: skip
"""What it is, a field's schema in a CRD, a value, whether an API server takes it."""

CASES = {f"field{index}": case for index, case in enumerate(FIELDS)}


def judged_crd() -> Json:
    fields = {name: schema for name, (_, schema, _, _) in CASES.items()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "judgeds.judge.tuneyard.io"},
        "spec": {
            "group": "judge.tuneyard.io",
            "scope": "Cluster",
            "names": {"kind": "Judged", "plural": "judgeds", "singular": "judged"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {"spec": {"type": "object", "properties": fields}},
                        }
                    },
                }
            ],
        },
    }


def judged(name: str) -> Json:
    return {
        "apiVersion": "judge.tuneyard.io/v1",
        "kind": "Judged",
        "metadata": {"name": name},
        "spec": {name: CASES[name][2]},
    }


def our_verdict(entry: Json, root: Path) -> bool:
    return check([File("a.yaml", "", "a", (entry,))], root) == []


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kept")
    (root / "crd.yaml").write_text(dump(judged_crd()))
    add([root / "crd.yaml"], root)
    return root


@pytest.mark.parametrize("name", CASES, ids=lambda name: CASES[name][0])
def test_a_custom_resource_is_judged_as_the_api_server_judges_it(name: str, kept: Path) -> None:
    assert our_verdict(judged(name), kept) == CASES[name][3]


@pytest.mark.cluster
def test_the_table_is_what_the_api_server_says(control_plane: Cluster) -> None:
    """Sent as they are: kubectl's own validation, which differs from the server's, has no say."""
    control_plane.apply(judged_crd())
    path = "/apis/judge.tuneyard.io/v1/judgeds?dryRun=All&fieldValidation=Strict"

    def is_taken(name: str) -> bool:
        done = control_plane.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(judged(name)))
        assert done.returncode == 0 or "is invalid" in done.stderr or "unknown field" in done.stderr, (
            done.stderr
        )
        return done.returncode == 0

    said = {CASES[name][0]: is_taken(name) for name in CASES}
    control_plane.kubectl("delete", "crd", "--wait=false", judged_crd()["metadata"]["name"])
    assert said == {what: good for what, _, _, good in FIELDS}


@pytest.mark.parametrize("quantity", [2, 0.5, "500m"])
def test_quantities_of_core_kinds_may_be_numbers(quantity: Any) -> None:
    entry = {
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "a", "namespace": "b"},
        "spec": {"hard": {"cpu": quantity}},
    }  # fmt: skip
    assert check_core_kinds([File("a.yaml", "", "a", (entry,))], "1.34") == []


DRAFT_7 = "http://json-schema.org/draft-07/schema#"
VALUES: list[tuple[str, Json, Any, bool]] = [
    ("format uri", {"format": "uri"}, "x y", False),
    ("format uri, right", {"format": "uri"}, "https://example.com/a", True),
    ("format email", {"format": "email"}, "a", False),
    ("format email, right", {"format": "email"}, "a.b@example.com", True),
    ("format date", {"format": "date"}, "2026-02-30", False),
    ("format date-time", {"format": "date-time"}, "2026-11-28 10:00", False),
    ("format date-time, right", {"format": "date-time"}, "2026-11-28T10:00:00.5+01:00", True),
    ("format ipv4", {"format": "ipv4"}, "10.0.0.01", False),
    ("format ipv6", {"format": "ipv6"}, "fd00::1", True),
    ("format hostname", {"format": "hostname"}, "-a", False),
    ("format hostname, right", {"format": "hostname"}, "a.example.com", True),
    ("format uuid", {"format": "uuid"}, "123e4567e89b12d3a456426614174000", False),
    ("format duration", {"format": "duration"}, "1h", False),
    ("format duration, right", {"format": "duration"}, "PT1H", True),
    ("format semver", {"format": "semver"}, "1.2", False),
    ("format regex", {"format": "regex"}, "(?=a)", False),
    ("format of an integer", {"format": "uri"}, 1, True),
    ("pattern: a digit", {"pattern": r"^\d+$"}, "123", True),
    ("pattern: the end of the text", {"pattern": r"^\d+$"}, "123\n", False),
    ("pattern: another script's digits", {"pattern": r"^\d+$"}, "\u0661", False),
    ("pattern: names", {"patternProperties": {r"^\d+$": {"type": "integer"}}}, {"1": "a"}, False),
    ("pattern: names, the rest refused", {"patternProperties": {r"^\d+$": {}}, "additionalProperties": False}, {"1\n": 1}, False),
    ("a multiple of a fraction", {"multipleOf": 0.1}, 0.3, True),
    ("no multiple of a fraction", {"multipleOf": 0.1}, 0.35, False),
    ("a constant", {"const": 1}, 1.0, True),
    ("a minimum, of a text", {"minimum": 1}, "5", True),
    ("a type beside a reference", {"$ref": "#/definitions/text", "type": "integer"}, "a", True),
    ("null", {"type": "integer"}, None, False),
    ("null where that is allowed", {"type": ["integer", "null"]}, None, True),
]  # fmt: skip
"""What it is, a schema of draft 7, a value, whether Helm takes it."""
NEWER: list[tuple[str, Json, Any, bool]] = [
    ("format uri", {"format": "uri"}, "x y", True),
    ("a type beside a reference", {"$ref": "#/definitions/text", "type": "integer"}, "a", False),
    ("items one by one", {"prefixItems": [{"type": "integer"}]}, ["a"], False),
]
"""The same for a schema that does not say its draft: Helm takes it for one of 2020-12, in which a format asserts nothing."""
SCHEMAS: dict[str, tuple[str | None, list[tuple[str, Json, Any, bool]]]] = {
    "draft 7": (DRAFT_7, VALUES),
    "no draft": (None, NEWER),
}


def values_schema(draft: str | None, cases: list[tuple[str, Json, Any, bool]]) -> Json:
    properties = {f"value{index}": schema for index, (_, schema, _, _) in enumerate(cases)}
    head = {"$schema": draft} if draft else {}
    return {**head, "definitions": {"text": {"type": "string"}}, "properties": properties}


def refused_here(schema: Json, values: Json) -> set[str]:
    chart = KeptChart("judged", "1.0.0", {}, schema)
    return {str(path[0]) if path else "" for path, _ in refused_values(values, chart)}


@pytest.mark.parametrize("name", SCHEMAS)
def test_chart_values_are_judged_as_helm_judges_them(name: str) -> None:
    draft, cases = SCHEMAS[name]
    values = {f"value{index}": value for index, (_, _, value, _) in enumerate(cases)}
    refused = refused_here(values_schema(draft, cases), values)
    assert {what: f"value{i}" not in refused for i, (what, *_) in enumerate(cases)} == {
        c[0]: c[3] for c in cases
    }


LOOKAHEAD = {"properties": {"a": {"pattern": "^(?=a)"}}}


def test_a_schema_with_a_pattern_that_go_does_not_have_refuses_everything() -> None:
    assert refused_here(LOOKAHEAD, {}) == {""}
    assert refused_here({"properties": {"a": {"default": {"pattern": "(?=a)"}}}}, {}) == set()


OWN = {
    "a": {"b": 1},
    "scalar": 1,
    "deep": {"m": 1, "unset": None},
    "unset": None,
    "list": [1],
    "sub": {"parents": 1},
    "global": {"x": 1},
}
SUBCHART_S_OWN = {"a": {"i": 1}, "b": 2}
LAID: dict[str, tuple[Json, Json]] = {
    "of a map": ({"a": None}, {"a": ...}),
    "of a scalar": ({"scalar": None}, {"scalar": ...}),
    "inside": ({"deep": {"m": None}}, {"deep": {"unset": None}}),
    "of what is null anyway": ({"unset": None}, {"unset": ...}),
    "inside, of what is null anyway": ({"deep": {"unset": None}}, {"deep": {"m": 1, "unset": None}}),
    "of a key that the chart lacks": ({"nowhere": None}, {"nowhere": None}),
    "inside, of a key that the chart lacks": ({"a": {"nowhere": None}}, {"a": {"b": 1, "nowhere": None}}),
    "below a key that the chart lacks": ({"nowhere": {"x": None}}, {"nowhere": {"x": None}}),
    "in a list": ({"list": [{"k": None}]}, {"list": [{"k": None}]}),
    "of a global": ({"global": {"x": None}}, {"global": {}}),
    "of a global that the chart lacks": ({"global": {"y": None}}, {"global": {"x": 1, "y": None}}),
    "of a subchart": ({"sub": {"a": None}}, {}),
    "inside a subchart": ({"sub": {"a": {"i": None}}}, {"sub": {"parents": 1, "a": {}}}),
    "of a subchart's key that the parent sets": ({"sub": {"parents": None}}, {"sub": {"parents": None}}),
    "of a whole subchart": ({"sub": None}, {"sub": {}}),
}  # fmt: skip
"""What is laid over the chart's values, and what differs from them then; `...` for a key that is gone."""


def expected(name: str) -> Json:
    return {key: value for key, value in (OWN | LAID[name][1]).items() if value is not ...}


@pytest.mark.parametrize("name", LAID)
def test_a_null_takes_away_what_the_chart_has(name: str) -> None:
    assert laid_over(OWN, LAID[name][0], ("sub",)) == expected(name)


def helm(folder: Path, chart: Json, schema: Json | None, values: Json) -> subprocess.CompletedProcess[str]:
    """What Helm makes of a chart that prints its values; with a subchart `sub`."""
    for place, about in ((folder, "judged"), (folder / "charts/sub", "sub")):
        (place / "templates").mkdir(parents=True, exist_ok=True)
        (place / "Chart.yaml").write_text(f"{{apiVersion: v2, name: {about}, version: 1.0.0}}")
    (folder / "values.yaml").write_text(json.dumps(chart))
    (folder / "charts/sub/values.yaml").write_text(json.dumps(SUBCHART_S_OWN))
    (folder / "templates/all.yaml").write_text("values: {{ toJson .Values }}")
    if schema is not None:
        (folder / "values.schema.json").write_text(json.dumps(schema))
    (folder / "over.yaml").write_text(dump(values))
    command = [str(program("helm")), "template", "judged", str(folder), "--values", str(folder / "over.yaml")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.cluster
@pytest.mark.parametrize("name", SCHEMAS)
def test_the_table_of_values_is_what_helm_says(name: str, helm_is_built: None, tmp_path: Path) -> None:
    draft, cases = SCHEMAS[name]
    values = {f"value{index}": value for index, (_, _, value, _) in enumerate(cases)}
    text = helm(tmp_path, {}, values_schema(draft, cases), values).stderr
    refused = set(re.findall(r"'/(value\d+)[/']", text))
    said = {what: f"value{i}" not in refused for i, (what, *_) in enumerate(cases)}
    assert said == {c[0]: c[3] for c in cases}


@pytest.mark.cluster
def test_helm_refuses_all_values_for_a_lookahead(helm_is_built: None, tmp_path: Path) -> None:
    assert "is not valid regex" in helm(tmp_path, {}, LOOKAHEAD, {}).stderr


@pytest.mark.cluster
@pytest.mark.parametrize("name", LAID)
def test_the_table_of_nulls_is_what_helm_does(name: str, helm_is_built: None, tmp_path: Path) -> None:
    done = helm(tmp_path, OWN, None, LAID[name][0])
    said = json.loads(done.stdout.partition("values: ")[2])
    ours = expected(name)
    subcharts_own = {key for key in SUBCHART_S_OWN if key not in ours["sub"]}
    said["sub"] = {key: value for key, value in said["sub"].items() if key not in {*subcharts_own, "global"}}
    assert said == ours
