# SPDX-License-Identifier: Apache-2.0
"""What Argo CD or the API server would write back differently is never rendered: it would be OutOfSync for ever.

Each of these was seen on the real Argo CD or read in its source; the first stopped the platform half-way.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tuneyard.environment.load import parse
from tuneyard.pipeline import build, build_loaded
from tuneyard_api.crd import build_job_crd, build_runtime_crd

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ("airgapped", "demo", "lab", "open")


@cache
def objects(name: str) -> list[dict[str, Any]]:
    return [entry for file in build(ROOT / f"environments/{name}.yaml", ROOT).files for entry in file.objects]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_source_has_an_empty_section(name: str) -> None:
    applications = [entry for entry in objects(name) if entry["kind"] == "Application"]
    assert applications
    empty = [
        f"{entry['metadata']['name']}: {section}"
        for entry in applications
        for section in ("directory", "helm", "kustomize")
        if not any(entry["spec"]["source"].get(section, {"said": True}).values())
    ]
    assert empty == []


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_what_is_never_pruned_never_counts_as_a_difference(name: str) -> None:
    kept = [
        entry["metadata"]["annotations"]
        for entry in objects(name)
        if "Prune=false"
        in entry["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-options", "")
    ]
    assert kept
    assert all(a.get("argocd.argoproj.io/compare-options") == "IgnoreExtraneous" for a in kept)


def defaults_in_lists(schema: Any, path: str = "", *, inside: bool = False) -> Iterator[str]:
    """Where a schema fills something into an item of a list, as jq has it."""
    if inside and "default" in schema:
        yield path
    for name, part in schema.get("properties", {}).items():
        yield from defaults_in_lists(part, f"{path}.{name}", inside=inside)
    if isinstance(schema.get("items"), dict):
        yield from defaults_in_lists(schema["items"], f"{path}[]?", inside=True)


def schema_of(crd: dict[str, Any]) -> Any:
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def test_what_the_api_server_fills_into_lists_of_a_job_is_no_difference() -> None:
    found = [entry for entry in objects("demo") if entry["metadata"]["name"] == "demo-jobs-fine-tuning"]
    ignored = next(entry["spec"]["ignoreDifferences"] for entry in found if entry["kind"] == "Application")
    assert ignored == [
        {
            "group": "tuneyard.io",
            "kind": "FineTuneJob",
            "jqPathExpressions": list(defaults_in_lists(schema_of(build_job_crd()))),
        }
    ]


def test_a_rendered_runtime_says_what_the_api_server_would_fill_into_its_lists() -> None:
    assert list(defaults_in_lists(schema_of(build_runtime_crd()))) == [".spec.tolerations[]?.operator"]
    text = (ROOT / "environments/demo.yaml").read_text()
    typed = text.replace(
        "      precisions: [fp32]\n", "      precisions: [fp32]\n      tolerations: [{key: a}]\n"
    )
    assert typed != text
    files = build_loaded(parse(typed.encode(), "demo.yaml"), ROOT).files
    (runtime,) = (entry for file in files for entry in file.objects if entry["kind"] == "FineTuneRuntime")
    assert runtime["spec"]["tolerations"] == [{"key": "a", "operator": "Equal"}]
