# SPDX-License-Identifier: Apache-2.0
"""What is rendered is taken by a real API server that validates strictly, with the real CRDs, and comes back unchanged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.gitops.stack import GitOpsStack, until
from tuneyard.pipeline import build
from tuneyard_api.yaml_io import load
from tuneyard_local import argocd
from tuneyard_local.parts import part_files

pytestmark = pytest.mark.gitops
ROOT = Path(__file__).parents[2]
THEIRS = ROOT.parent / "shared" / "schemas"
"""CRDs of other projects, which are not ours to ship."""
ENVIRONMENTS = ("airgapped", "lab", "open")
GROUPS = ("argoproj.io", "apps.nvidia.com", "nvidia.com", "tuneyard.io")
Json = dict[str, Any]


def crd_files() -> Iterator[Path]:
    yield from (part_files("argo-cd") / "manifests" / "crds" / name for name in argocd.CRDS)
    yield from sorted((ROOT / "manifests" / "crds").glob("*.tuneyard.io.yaml"))
    yield from sorted(THEIRS.glob("*/*.yaml"))


@pytest.fixture(scope="module")
def plurals(gitops: GitOpsStack) -> Iterator[dict[tuple[str, str], str]]:
    """(apiVersion, kind) -> the path's last word; the CRDs go again, as others share this cluster."""
    found, definitions = {}, []
    for path in crd_files():
        value = load(path.read_text(), str(path)).value
        spec, metadata = value["spec"], {"name": value["metadata"]["name"]}
        if spec["group"] != "argoproj.io":  # Argo CD has brought its own
            definitions.append({**value, "metadata": value["metadata"] | metadata})
        for version in spec["versions"]:
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = spec["names"]["plural"]
    gitops.cluster.apply(*definitions)
    for (version, _), plural in found.items():
        where = f"/apis/{version}/{plural}"
        until(where, lambda where=where: gitops.api.get(where), 120)
    yield found
    gitops.wipe()


def rendered(name: str) -> list[Json]:
    """The custom resources of an environment: Applications, AppProject, NIM and NeMo objects, ours."""
    files = build(ROOT / f"environments/{name}.yaml", ROOT).files
    return [o for file in files for o in file.objects if o["apiVersion"].split("/")[0] in GROUPS]


def lost(rendered: Any, returned: Any, path: str = "") -> Iterator[str]:
    """Where what came back is not what was sent; fields that a schema's defaults added are no loss."""
    if isinstance(rendered, dict) and isinstance(returned, dict):
        for key, value in rendered.items():
            if key in returned:
                yield from lost(value, returned[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}: gone"
    elif isinstance(rendered, list) and isinstance(returned, list) and len(rendered) == len(returned):
        for index, value in enumerate(rendered):
            yield from lost(value, returned[index], f"{path}[{index}]")
    elif rendered != returned:
        yield f"{path}: {rendered!r} became {returned!r}"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_rendered_objects_pass_strict_validation_and_come_back_unchanged(
    gitops: GitOpsStack, plurals: dict[tuple[str, str], str], name: str
) -> None:
    problems, checked = [], set()
    spaces = {o["metadata"].get("namespace") for o in rendered(name)} - {None}
    gitops.cluster.apply(
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": s}} for s in sorted(spaces))
    )
    for entry in rendered(name):
        plural = plurals.get((entry["apiVersion"], entry["kind"]))
        if plural is None:
            continue
        space = entry["metadata"].get("namespace")
        inside = f"/namespaces/{space}" if space else ""
        query = "dryRun=All&fieldValidation=Strict"
        status, answer = gitops.api.send(
            "POST", f"/apis/{entry['apiVersion']}{inside}/{plural}?{query}", entry
        )
        label = f"{entry['kind']} {entry['metadata']['name']}"
        problems += [f"{label}: {answer}"] if status != 201 else [f"{label}{p}" for p in lost(entry, answer)]
        checked.add(entry["apiVersion"].split("/")[0])
    assert problems == []
    assert {"argoproj.io", "tuneyard.io"} <= checked
    if not THEIRS.is_dir():
        pytest.skip(f"NVIDIA's CRDs are not in {THEIRS}: only Argo CD's objects and ours were checked")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": {"repoUrl": "https://git.example.com/x.git"}}, "unknown field"),
        ({"syncPolicy": {"retry": {"limit": "five"}}}, "must be of type integer"),
    ],
)
def test_strict_validation_refuses_what_is_wrong(
    gitops: GitOpsStack, plurals: dict[tuple[str, str], str], change: Json, words: str
) -> None:
    """That the check above can fail."""
    entry = next(o for o in rendered("open") if o["kind"] == "Application")
    entry = {**entry, "spec": {**entry["spec"], **change}}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": entry["metadata"]["namespace"]}}
    gitops.cluster.apply(space)
    path = f"/apis/argoproj.io/v1alpha1/namespaces/{entry['metadata']['namespace']}/applications"
    status, answer = gitops.api.send("POST", f"{path}?dryRun=All&fieldValidation=Strict", entry)
    assert status in (400, 422)
    assert words in answer["message"]
