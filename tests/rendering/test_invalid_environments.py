# SPDX-License-Identifier: Apache-2.0
"""Each file of tests/invalid/environments breaks one rule and says on its first line what people are told."""

from pathlib import Path

import pytest
from tuneyard.environment.load import load, parse
from tuneyard.findings import Finding, InputError, Severity, as_json, as_sarif, in_order
from tuneyard.pipeline import build_loaded

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests/invalid/environments").glob("*.yaml"))
BASE = """\
name: fine
argocd: {repoUrl: "https://git.example.com/gitops.git"}
storage:
  readWriteOnce: {className: local-path}
registries: {operatorImage: "registry.internal/tuneyard/operator:1", trainerImage: "registry.internal/tuneyard/trainer:1"}
"""


def findings_of(text: str, name: str = "file.yaml") -> list[Finding]:
    """What people are told, but for the known vulnerability of MinIO, which these environments have by default."""
    try:
        found = build_loaded(parse(text.encode(), name), ROOT).findings
        return [finding for finding in found if finding.rule != "image-is-not-vulnerable"]
    except InputError as error:
        return in_order(error.findings)


def test_there_are_fixtures() -> None:
    assert len(FILES) >= 70


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_rule_is_reported_at_its_place(path: Path) -> None:
    text = path.read_text()
    expected = text.splitlines()[0].removeprefix("# expect: ")
    errors = [f for f in findings_of(text, path.name) if f.severity is Severity.ERROR]
    assert [str(f).removeprefix(f"{path.name}:") for f in errors] == [expected]


def test_the_base_of_the_fixtures_is_valid() -> None:
    assert findings_of(BASE) == []


WARNED = {
    "a network in NO_PROXY": (
        'proxy: {https: "http://proxy:3128", exempt: [.svc, 10.0.0.0/8]}',
        "proxy.exempt[1]: warning: urllib, aiohttp and botocore do not read networks, and ask the proxy for these hosts (got '10.0.0.0/8'); try the names of the hosts, or a suffix such as '.internal'",
    ),
}
"""What is warned of: a line that is added to a valid environment, and what people are told."""


@pytest.mark.parametrize("name", WARNED)
def test_what_continues_at_ones_own_risk_is_reported(name: str) -> None:
    line, told = WARNED[name]
    found = findings_of(f"{BASE}{line}\n")
    assert [str(f).partition(" ")[2] for f in found] == [told]
    assert all(f.severity is Severity.WARNING and f.line == BASE.count("\n") + 1 for f in found)


def test_hosts_that_are_reached_directly_by_default_are_names_that_everybody_reads() -> None:
    assert findings_of(f'{BASE}proxy: {{https: "http://proxy:3128"}}\n') == []


def test_all_problems_are_reported_at_once() -> None:
    text = BASE + "storag: 1\nsizing: huge\nargocs: {}\n"
    assert [(f.line, f.rule) for f in findings_of(text)] == [
        (6, "unknown-key"),
        (7, "unknown-value"),
        (8, "unknown-key"),
    ]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("components.mlfow.enabled: {}", None),
        ("sizing: Large", "large"),
        ("presett: open", "preset"),
        ("use: {vectorDb: milvas}", "milvus"),
        ("gpus: {drivr: operator}", "driver"),
    ],
)
def test_near_words_are_proposed(path: str, hint: str | None) -> None:
    assert findings_of(f"{BASE}{path}\n")[0].hint == hint


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"name: \x00\n", b"- a\n- b\n", b"", b"42\n"], ids=repr)
def test_what_is_no_environment_at_all_is_refused_with_a_place(raw: bytes) -> None:
    with pytest.raises(InputError) as caught:
        parse(raw, "file.yaml")
    assert all(finding.file == "file.yaml" for finding in caught.value.findings)


def test_a_file_that_is_not_there_and_one_that_is_huge_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read: No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "huge.yaml").write_text("#" * 1_048_577)
    with pytest.raises(InputError, match="at most 1,048,576 bytes"):
        load(tmp_path / "huge.yaml")


def test_the_name_is_the_file_s(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(BASE)
    with pytest.raises(InputError, match=r"other\.yaml:1:1 name: the name differs from the name of the file"):
        load(tmp_path / "other.yaml")


@pytest.mark.parametrize(
    "secret", ["nvapi-" + "a" * 30, "hf_" + "b" * 30, "AKIA" + "C" * 16, "-----BEGIN RSA PRIVATE KEY-----"]
)
def test_a_typed_in_secret_is_refused_and_never_repeated(secret: str) -> None:
    found = findings_of(f"{BASE}components:\n  mlflow:\n    values: {{note: '{secret}'}}\n")
    assert [f.rule for f in found] == ["no-secrets-in-file"]
    assert secret not in as_json(found) + as_sarif(found) + str(found[0])


def test_names_of_existing_secrets_are_no_secrets() -> None:
    text = f"{BASE}components:\n  mlflow:\n    values: {{auth: {{existingSecretPassword: name, tokenSecret: name}}}}\n"
    assert findings_of(text) == []


def test_sarif_carries_rule_file_and_place() -> None:
    import json

    run = json.loads(as_sarif(findings_of(f"{BASE}storag: 1\n")))["runs"][0]
    assert run["tool"]["driver"]["rules"] == [{"id": "unknown-key"}]
    location = run["results"][0]["locations"][0]["physicalLocation"]
    assert location["artifactLocation"]["uri"] == "file.yaml"
    assert location["region"] == {"startLine": 6, "startColumn": 1}
