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
    """What people are told, but for known vulnerabilities, of which some of these environments have one."""
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


GPUS = "gpus: {nodes: [{product: NVIDIA-L40S, nodes: 1, gpusPerNode: 4, memoryGiB: 48}]}\n"
NIM = "name: llama, engine: nim, image: {repository: nvcr.io/nim/meta/llama-3.1-8b-instruct, tag: 1.8.6}"
VLLM = "name: qwen, huggingFace: {repo: Qwen/Qwen2.5-7B-Instruct, revision: a09a35458c702b33eeacc393d103063234e8bc28}"
LORA = "lora: {source: folder, baseModel: {repo: meta-llama/Llama-3.1-8B-Instruct, revision: abc1234}, refreshSeconds: 600}"
IN_S3 = "fineTuning: {runtimes: [{name: hf}], registryS3: {bucket: adapters}}\n"
WARNED = {
    "a network in NO_PROXY": (
        'proxy: {https: "http://proxy:3128", exempt: [.svc, 10.0.0.0/8]}',
        "proxy.exempt[1]: warning: urllib, aiohttp and botocore do not read networks, and ask the proxy for these hosts (got '10.0.0.0/8'); try the names of the hosts, or a suffix such as '.internal'",
    ),
    "a cache of a vLLM that a second version does not fit": (
        f"{GPUS}models:\n- {{{VLLM}, cacheGiB: 20}}",
        (
            "models[0].cacheGiB: warning: a new version is downloaded beside the former 14 GiB, and has no room (got 20); try 29,"
            " or deleting the former files from the claim before each new version"
        ),
    ),
    "a cache of a NIM that a second version does not fit": (
        f"{GPUS}models:\n- {{{NIM}, cacheGiB: 40}}",
        (
            "models[0].cacheGiB: warning: a new version is downloaded beside the former 22 GiB, and has no room (got 40); try 45,"
            " or deleting the former files from the claim before each new version"
        ),
    ),
    "a NIM that looks for adapters too seldom": (
        f"{GPUS}{IN_S3}models:\n- {{{NIM}, {LORA}}}",
        (
            "models[0].lora.refreshSeconds: warning: a job waits 600 s for its adapter, and the next look may come later (got 600);"
            " try 300 or fewer, or serve.timeoutSeconds in every job"
        ),
    ),
}
"""What is warned of: lines that are added to a valid environment, and what people are told of the last of them."""


@pytest.mark.parametrize("name", WARNED)
def test_what_continues_at_ones_own_risk_is_reported(name: str) -> None:
    lines, told = WARNED[name]
    text = f"{BASE}{lines}\n"
    found = findings_of(text)
    assert [str(f).partition(" ")[2] for f in found] == [told]
    assert all(f.severity is Severity.WARNING and f.line == text.count("\n") for f in found)


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
