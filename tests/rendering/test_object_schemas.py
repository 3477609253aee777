# SPDX-License-Identifier: Apache-2.0
"""Every rendered object of a core kind fits Kubernetes' own schema, every Argo CD object Argo CD's."""

import copy
from pathlib import Path
from typing import Any

import pytest
from tuneyard.checks.core_kinds import check_core_kinds
from tuneyard.checks.custom_kinds import add, check, known
from tuneyard.pipeline import Built, build
from tuneyard.render.files import File
from tuneyard_local.parts import part_files

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ("airgapped", "demo", "lab", "open")


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def built(request: pytest.FixtureRequest) -> Built:
    return build(ROOT / f"environments/{request.param}.yaml", ROOT)


def test_core_kinds_fit_kubernetes(built: Built) -> None:
    kinds = {entry["kind"] for file in built.files for entry in file.objects}
    assert {"Namespace", "PersistentVolumeClaim", "ResourceQuota", "Secret", "ConfigMap"} <= kinds
    assert [str(f) for f in check_core_kinds(built.files, built.loaded.environment.cluster.kubernetes)] == []


def with_field(built: Built, kind: str, key: str, value: Any) -> list[File]:
    """The tree with one more field in the spec of the first object of a kind."""
    file = next(f for f in built.files for e in f.objects if e["kind"] == kind)
    entry = copy.deepcopy(dict(file.objects[0]))
    entry["spec"][key] = value
    return [File(file.path, "", file.component, (entry,))]


def test_a_field_that_kubernetes_does_not_have_is_found(built: Built) -> None:
    found = check_core_kinds(with_field(built, "PersistentVolumeClaim", "storageClas", "fast"), "1.33")
    assert [(f.rule, "storageClas" in f.problem) for f in found] == [("fits-kubernetes", True)]


def test_an_unknown_version_is_a_warning(built: Built) -> None:
    found = check_core_kinds(built.files, "1.99")
    assert [f.severity.value for f in found] == ["warning"]


def test_argo_cd_s_objects_fit_its_crds(built: Built, tmp_path: Path) -> None:
    crds = part_files("argo-cd") / "manifests/crds"
    if not crds.is_dir():
        pytest.skip("Argo CD's CRDs are not here; `tuneyard-local build argo-cd` brings them")
    add([crds], tmp_path)
    assert {("argoproj.io/v1alpha1", "Application"), ("argoproj.io/v1alpha1", "AppProject")} <= set(
        known(tmp_path)
    )
    assert [str(f) for f in check(built.files, tmp_path)] == []
    wrong = with_field(built, "Application", "sourcess", [])
    assert [f.rule for f in check(wrong, tmp_path)] == ["fits-schema"]
