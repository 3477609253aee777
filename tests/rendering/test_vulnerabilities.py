# SPDX-License-Identifier: Apache-2.0
"""The dated list of known vulnerabilities: which versions it takes for affected, and that people are told."""

import re
from typing import Any

import pytest
from tuneyard.catalog import catalog, pins, vulnerabilities
from tuneyard.checks.vulnerabilities import images_have_no_known_vulnerability
from tuneyard.environment.model import Environment
from tuneyard.findings import Finding
from tuneyard.stack.resolve import resolve
from tuneyard.stack.vulnerabilities import Vulnerability

BRANCHES = Vulnerability("CVE-1", "milvusdb/milvus", ("2.5.27", "2.6.10"), "about", "source")
NEVER = Vulnerability("CVE-2", "minio/minio", (), "about", "source")


@pytest.mark.parametrize(
    ("image", "affected"),
    [
        ("docker.io/milvusdb/milvus:v2.3.4", True),
        ("docker.io/milvusdb/milvus:v2.5.26", True),
        ("docker.io/milvusdb/milvus:v2.5.27", False),
        ("docker.io/milvusdb/milvus:v2.6.9", True),
        ("registry.internal:5000/docker.io/milvusdb/milvus:v2.6.9", True),
        ("docker.io/milvusdb/milvus:v2.6.15", False),
        ("docker.io/milvusdb/milvus:v3.0.0", False),
        ("docker.io/milvusdb/milvus-config-tool:v0.1.2", False),
        ("docker.io/milvusdb/milvus@sha256:0123", False),
    ],
)
def test_a_branch_has_its_own_fix(image: str, affected: bool) -> None:
    assert BRANCHES.affects(image) is affected


def test_what_nobody_fixed_stays_affected() -> None:
    assert NEVER.affects("quay.io/minio/minio:RELEASE.2024-12-18T13-15-44Z")


def found(**changes: Any) -> list[Finding]:
    environment = Environment.model_validate(
        {
            "name": "t",
            "argocd": {"repoUrl": "https://git.example.com/g.git"},
            "storage": {"readWriteOnce": {"className": "block"}},
            "gpus": {"nodes": [{"product": "NVIDIA-L40S", "gpusPerNode": 4, "memoryGiB": 48}]},
            **changes,
        }
    )
    return list(images_have_no_known_vulnerability(resolve(environment, catalog(environment), pins())))


def test_an_environment_is_warned_of_what_it_runs() -> None:
    assert found(preset="open") == []
    (minio,) = found(preset="open", use={"s3": "minio"})
    assert minio.path == ("components", "minio")
    assert "CVE-2025-62506" in minio.problem
    assert vulnerabilities().as_of in minio.problem
    assert (
        found(preset="open", use={"s3": "external-s3"}, externalS3={"endpoint": "https://s3.internal"}) == []
    )


def test_a_server_that_a_person_chose_is_looked_at_too() -> None:
    image = {"repository": "docker.io/vllm/vllm-openai", "tag": "v0.11.0"}
    hub = {"repo": "Qwen/Qwen2.5-7B-Instruct", "revision": "abc"}
    model = {"name": "m", "huggingFace": hub}
    old = [f for f in found(models=[{**model, "image": image}]) if f.path[0] == "models"]
    assert [f.path for f in old] == [("models", 0, "image")]
    assert "CVE-2025-62164" in old[0].problem
    assert [f for f in found(models=[model]) if f.path[0] == "models"] == []


def test_the_list_has_dates_names_and_sources() -> None:
    known = vulnerabilities()
    assert re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", known.as_of)
    assert all(re.fullmatch(r"(CVE|GHSA|PYSEC)-[\w-]+", entry.id) for entry in known.entries)
    assert all(entry.source.startswith("https://") and entry.about for entry in known.entries)
    images = {image for pin in pins().values() for image in (*pin.deploys, *pin.images.values())}
    for entry in known.entries:
        assert any(f"/{entry.image}:" in image for image in images), (
            f"{entry.image} is nowhere in the catalog"
        )
