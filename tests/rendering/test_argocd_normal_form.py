# SPDX-License-Identifier: Apache-2.0
"""What Argo CD or the API server would write back differently is never rendered: it would be OutOfSync for ever.

Each of these was seen on the real Argo CD or read in its source; the first stopped the platform half-way.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tuneyard.pipeline import build

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
