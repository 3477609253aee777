# SPDX-License-Identifier: Apache-2.0
"""Every check can fail: those of the tree on broken trees, those of the stack on the invalid environments and some here."""

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tuneyard.checks import FILE_CHECKS, STACK_CHECKS
from tuneyard.checks.tree import needs_come_first
from tuneyard.cluster import contradictions
from tuneyard.environment.load import parse
from tuneyard.findings import InputError
from tuneyard.pipeline import Built, build, resolve_loaded
from tuneyard.render.files import File

ROOT = Path(__file__).parents[2]
BASE = """\
name: t
argocd: {repoUrl: "https://git.example.com/g.git"}
storage: {readWriteOnce: {className: fast}}
"""
NODES = "gpus: {nodes: [{product: NVIDIA-L40S, nodes: 2, gpusPerNode: 1, memoryGiB: 48}]%s}\n"
MODEL = "models: [{name: m, huggingFace: {repo: Qwen/Qwen2.5-7B-Instruct, revision: abc}}]\n"
EXTRA = (
    BASE + NODES % ", timeSlicing: {replicas: 2}" + MODEL,
    BASE + NODES % "" + MODEL.replace("abc", "abc}, cacheGiB: 20").replace("}}]", "}]"),
    BASE + NODES % "" + "fineTuning: {namespaces: [{name: a, gpus: 1}]}\n",
    BASE + NODES % "" + "preset: nemo-microservices\n",
    BASE + "cluster: {distribution: openshift}\n",
    BASE + "preset: nemo-microservices\n"
    "registries: {airGapped: true, mirror: registry.internal, charts: registry.internal/charts}\n"
    "use: {postgres: external-postgres}\nexternalPostgres: {host: postgres.internal}\n",
    BASE + NODES % "" + "preset: open\nuse: {s3: minio}\n",
    BASE + 'proxy: {https: "http://proxy:3128", exempt: [10.0.0.0/8]}\n',
    BASE + "preset: nemo-microservices\ncluster: {networkPolicies: false}\n"
    'workflows: {singleSignOn: {issuer: "https://login.example.org", url: "https://w.example.org"}}\n',
)


@cache
def lab(name: str = "airgapped") -> Built:
    return build(ROOT / f"environments/{name}.yaml", ROOT)


def first(kind: str) -> File:
    return next(
        f for f in lab().files for e in f.objects if e["kind"] == kind and f.path.startswith("manifests/")
    )


def changed(kind: str, change: Callable[[dict[str, Any]], object]) -> list[File]:
    file = first(kind)
    entry = copy.deepcopy(dict(file.objects[0]))
    change(entry)
    return [replace(file, objects=(entry,), text=str(entry))]


def again(kind: str) -> list[File]:
    return [first(kind), replace(first(kind), path="manifests/airgapped/other/x.yaml")]


def set_at(*path: Any) -> Callable[[dict[str, Any]], object]:
    *keys, last, value = path

    def change(entry: dict[str, Any]) -> None:
        for key in keys:
            entry = entry[key]
        entry[last] = value

    return change


def application(**values: Any) -> list[File]:
    """An Application that carries these values."""
    file = next(
        f for f in lab().files for e in f.objects if e["kind"] == "Application" and f.component == "mlflow"
    )
    entry = copy.deepcopy(dict(file.objects[0]))
    entry["spec"]["source"]["helm"]["valuesObject"] |= values
    return [replace(file, objects=(entry,))]


BROKEN: dict[str, tuple[str, list[File]]] = {
    "paths_are_written_once": ("path-is-written-once", [first("Namespace"), first("Namespace")]),
    "objects_are_unique": ("object-has-one-owner", again("NIMService")),
    "namespaces_are_made": ("namespace-is-made", changed("NIMService", set_at("metadata", "namespace", "nowhere"))),
    "addresses_are_provided": (
        "address-is-provided",
        changed("NemoEvaluator", set_at("spec", "datastore", "endpoint", "http://nobody.nemo.svc.cluster.local:8000")),
    ),
    "secrets_are_listed": ("secret-is-listed", changed("NIMService", set_at("spec", "authSecret", "unknown"))),
    "nvidia_objects_have_no_empty_fields": (
        "nvidia-no-empty-fields", changed("NIMCache", set_at("spec", "storage", "pvc", "storageClass", "")),
    ),
    "a_false_survives_the_operator": (
        "nvidia-false-survives", changed("NIMService", set_at("spec", "expose", {"router": {"gateway": {"httpRoutesEnabled": False}}})),
    ),
    "inlined_values_have_no_nulls": ("inlined-without-nulls", application(objects=[{"spec": {"a": [None]}}])),
    "applications_can_be_stored": ("application-can-be-stored", application(text="x" * 100_000)),
    "images_are_fixed": ("image-is-fixed", changed("NIMService", set_at("spec", "image", "nvcr.io/nim/x:latest"))),
    "air_gap_has_every_image": (
        "air-gap-has-image", changed("NIMService", set_at("spec", "image", "repository", "nvcr.io/nim/x")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_tree_is_found(name: str) -> None:
    rule, files = BROKEN[name]
    check = next(check for check in FILE_CHECKS if check.__name__ == name)
    assert rule in {finding.rule for finding in check(lab().stack, files)}
    assert rule not in {finding.rule for finding in check(lab().stack, lab().files)}


def test_a_port_of_another_service_is_found() -> None:
    files = changed(
        "NemoEvaluator", set_at("spec", "vectorDB", "endpoint", "http://milvus.data.svc.cluster.local:80")
    )
    check = next(check for check in FILE_CHECKS if check.__name__ == "addresses_are_provided")
    assert "answers on port 19530" in next(iter(check(lab().stack, files))).problem


def test_a_quantity_that_the_operator_would_rewrite_is_found() -> None:
    files = changed("NIMCache", set_at("spec", "storage", "pvc", "size", "1024Gi"))
    check = next(check for check in FILE_CHECKS if check.__name__ == "nvidia_objects_have_no_empty_fields")
    assert [finding.rule for finding in check(lab().stack, files)] == ["nvidia-canonical-quantities"]


def test_waves_that_are_wrong_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = {component.name: 0 for component in lab().stack.components}
    monkeypatch.setattr("tuneyard.checks.tree.waves", lambda _: flat)
    assert {finding.rule for finding in needs_come_first(lab().stack, ())} == {"needs-come-first"}


def test_every_check_of_a_tree_is_broken_above() -> None:
    assert {check.__name__ for check in FILE_CHECKS} == {*BROKEN, "needs_come_first"}


def test_every_check_of_an_environment_fails_on_some_environment() -> None:
    texts = [path.read_text() for path in sorted((ROOT / "tests/invalid/environments").glob("*.yaml"))]
    silent = {check.__name__: check for check in STACK_CHECKS}
    for text in (*texts, *EXTRA):
        try:
            stack = resolve_loaded(parse(text.encode(), "file.yaml"))
        except InputError:
            continue
        silent = {name: check for name, check in silent.items() if not list(check(stack))}
    assert sorted(silent) == []


def test_the_table_of_pitfalls_names_checks_that_exist() -> None:
    page = (ROOT / "docs/reference/pitfalls.md").read_text()
    named = set(re.findall(r"check `(\w+)`", page))
    known = {check.__name__ for check in (*STACK_CHECKS, *FILE_CHECKS, *contradictions.CHECKS)}
    assert named - known == set()
    tests = set(re.findall(r"`(tests/[\w/]+\.py)`", page))
    assert [path for path in sorted(tests) if not (ROOT / path).is_file()] == []


def test_charts_whose_images_nobody_knows_are_named_in_an_air_gap() -> None:
    findings = {finding.rule: finding for finding in lab().findings}
    assert "nemo-operator" in findings["air-gap-knows-images"].problem
    page = next(file.text for file in lab().files if file.path.endswith("/images.md"))
    assert "| mlflow | docker.io/busybox:1.38.0 | registry.internal/docker.io/busybox:1.38.0 |" in page
    assert "the images of nemo-operator" in page
    assert "air-gap-knows-images" not in {finding.rule for finding in lab("lab").findings}
