# SPDX-License-Identifier: Apache-2.0
"""What is rendered fits the schemas that exist: NVIDIA's CRDs, our CRDs, our chart's values, Argo CD's fields."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tuneyard.catalog import catalog, pins
from tuneyard.checks import check_files, check_stack
from tuneyard.checks.custom_kinds import strict
from tuneyard.checks.tree import TRUE_BY_DEFAULT
from tuneyard.environment.model import Environment
from tuneyard.findings import Severity
from tuneyard.pipeline import build
from tuneyard.render.tree import local_paths, render
from tuneyard.stack.resolve import resolve
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.yaml_io import load, load_all

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT.parent / "shared/schemas"
ENVIRONMENTS = ("airgapped", "demo", "lab", "open")
APPLICATION = {
    "project", "source", "destination", "syncPolicy", "ignoreDifferences",
}  # fmt: skip
SOURCE = {"repoURL", "chart", "targetRevision", "path", "ref", "helm", "directory"}


def objects(kind: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in ENVIRONMENTS:
        for file in build(ROOT / f"environments/{name}.yaml", ROOT).files:
            for entry in file.objects:
                if kind in (None, entry["kind"]):
                    yield file.path, entry


@cache
def schemas() -> dict[str, Any]:
    found = {}
    for path in SCHEMAS.rglob("*.yaml"):
        for document in load_all(path.read_text(), str(path)):
            if isinstance(document.value, dict) and document.value.get("kind") == "CustomResourceDefinition":
                spec = document.value["spec"]
                found[spec["names"]["kind"]] = spec["versions"][0]["schema"]["openAPIV3Schema"]
    return found


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="NVIDIA's CRDs are not here")
def test_every_nvidia_object_fits_its_crd_strictly() -> None:
    known = schemas()
    seen = set()
    for path, entry in objects():
        if entry["apiVersion"].startswith("apps.nvidia.com/"):
            schema = strict(known[entry["kind"]]["properties"]["spec"])
            errors = [
                f"{path} {e.json_path}: {e.message}"
                for e in jsonschema.Draft202012Validator(schema).iter_errors(entry["spec"])
            ]
            assert errors == []
            seen.add(entry["kind"])
    assert seen >= {
        "NIMCache",
        "NIMService",
        "NemoDatastore",
        "NemoEntitystore",
        "NemoCustomizer",
        "NemoEvaluator",
        "NemoGuardrail",
    }


LLAMA: dict[str, Any] = {
    "name": "llama",
    "image": {"repository": "nvcr.io/nim/meta/llama-3.1-8b-instruct", "tag": "1.8.6"},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "autoscaling": {
        "models": [{**LLAMA, "autoscaling": {"maxReplicas": 2}}],
        "use": {"metrics": "existing-prometheus"},
        "components": {"existing-pod-metrics": {"enabled": True}},
    },
    "several nodes, mpi": {"models": [{**LLAMA, "multiNode": {"pipeline": 2}}]},
    "several nodes, ray": {
        "models": [{**LLAMA, "image": {**LLAMA["image"], "tag": "2.0.3"}, "multiNode": {"pipeline": 2}}]
    },
    "adapters, NIM 2": {"models": [{**LLAMA, "image": {**LLAMA["image"], "tag": "2.0.3"}, "lora": {}}]},
    "dynamic resource allocation": {"models": [LLAMA], "use": {"gpu": "dra-driver"}},
    "a pipeline": {
        "models": [LLAMA, {**LLAMA, "name": "other"}],
        "pipelines": [{"name": "both", "models": ["llama", "other"]}],
    },
    "weights from the hub": {
        "models": [{**LLAMA, "huggingFace": {"repo": "Qwen/Qwen2.5-7B-Instruct", "revision": "abc"}}]
    },
    "a profile": {"models": [{**LLAMA, "profile": "abc"}]},
    "an engine and a product": {
        "models": [{**LLAMA, "nimEngine": "vllm", "gpuProduct": "NVIDIA-A100-SXM4-80GB"}]
    },
    "a proxy and a domain": {
        "models": [LLAMA],
        "proxy": {"https": "http://proxy.example.com:3128"},
        "cluster": {
            "kubernetes": "1.34",
            "domain": "example.com",
            "ingress": {"className": "nginx", "tlsSecret": "tls"},
        },
    },
    "an external S3 and no bucket": {
        "models": [],
        "use": {"s3": "external-s3"},
        "externalS3": {"endpoint": "https://s3.example.com"},
    },
}


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="NVIDIA's CRDs are not here")
@pytest.mark.parametrize("name", VARIANTS)
def test_every_way_to_serve_fits_the_crds_strictly(name: str) -> None:
    data = {
        "name": "t",
        "preset": "nemo-microservices",
        "cluster": {"kubernetes": "1.34"},
        "argocd": {"repoUrl": "https://git.example.com/g.git"},
        "gpus": {
            "nodes": [{"product": "NVIDIA-A100-SXM4-80GB", "nodes": 4, "gpusPerNode": 8, "memoryGiB": 80}]
        },
        "storage": {"readWriteOnce": {"className": "block"}, "readWriteMany": {"className": "files"}},
        **VARIANTS[name],
    }
    stack = resolve(environment := Environment.model_validate(data), catalog(environment), pins())
    assert [str(f) for f in check_stack(stack) if f.severity is Severity.ERROR] == []
    files = render(stack, dict.fromkeys(local_paths(stack), "0" * 64))
    assert [str(f) for f in check_files(stack, files)] == []
    known = schemas()
    for file in files:
        for entry in file.objects:
            if entry["apiVersion"].startswith("apps.nvidia.com/"):
                schema = strict(known[entry["kind"]]["properties"]["spec"])
                found = jsonschema.Draft202012Validator(schema).iter_errors(entry["spec"])
                assert [f"{file.path} {e.json_path}: {e.message}" for e in found] == []


def true_by_default(schema: dict[str, Any]) -> Iterator[str]:
    """Names of fields whose default is true, at any depth."""
    for name, child in schema.get("properties", {}).items():
        if child.get("default") is True:
            yield name
        yield from true_by_default(child)
    if isinstance(items := schema.get("items"), dict):
        yield from true_by_default(items)


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="NVIDIA's CRDs are not here")
def test_the_fields_that_are_true_unless_they_are_said_are_known() -> None:
    found = {kind: set(true_by_default(schema)) for kind, schema in schemas().items()}
    ours = {name for kind, names in found.items() if kind.startswith(("NIM", "Nemo")) for name in names}
    assert ours == TRUE_BY_DEFAULT


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="NVIDIA's CRDs are not here")
def test_a_misspelt_field_would_be_found() -> None:
    schema = strict(schemas()["NIMService"]["properties"]["spec"])
    assert not jsonschema.Draft202012Validator(schema).is_valid(
        {"image": {"repository": "a", "tag": "1"}, "authSecret": "a", "replica": 1}
    )


def test_every_runtime_fits_our_model() -> None:
    found = [FineTuneRuntime.model_validate(entry) for _, entry in objects("FineTuneRuntime")]
    assert {runtime.metadata.name for runtime in found} == {"hf", "hf-nim", "hf-cpu", "nemo-customizer"}


def test_our_chart_accepts_its_values() -> None:
    import json

    schema = json.loads((ROOT / "charts/tuneyard-operator/values.schema.json").read_text())
    for name in ENVIRONMENTS:
        values = load((ROOT / f"manifests/{name}/tuneyard-operator/values.yaml").read_text()).value
        jsonschema.validate(values, schema)


def test_applications_have_only_fields_that_argo_cd_knows() -> None:
    """Names as in the Application CRD of 3.2.11; a misspelt one is dropped there without a word."""
    count = 0
    for path, entry in objects("Application"):
        spec = entry["spec"]
        assert set(spec) <= APPLICATION, path
        assert set(spec["source"]) <= SOURCE, path
        assert set(spec["source"].get("helm", {})) <= {"releaseName", "valuesObject"}, path
        assert set(spec["destination"]) <= {"server", "namespace"}, path
        assert set(spec["syncPolicy"]) == {"automated", "retry", "syncOptions"}, path
        assert set(spec["syncPolicy"]["retry"]) == {"limit", "refresh", "backoff"}, path
        assert set(spec["syncPolicy"]["syncOptions"]) <= {
            "ServerSideApply=true",
            "SkipDryRunOnMissingResource=true",
            "RespectIgnoreDifferences=true",
        }, path
        assert len(entry["metadata"]["name"]) <= 63, path
        count += 1
    assert count > 60


def test_the_models_root_is_the_platform_s_last_wave() -> None:
    for name in ("lab", "open", "airgapped"):
        folder = ROOT / f"argocd-apps/{name}/platform"
        waves = {
            p.stem: int(load(p.read_text()).value["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])
            for p in folder.glob("*.yaml")
        }
        last = waves.pop("models")
        assert last > max(waves.values())


def test_nothing_that_holds_data_is_deleted_by_a_cascade() -> None:
    """The operators of data stay too: without their CRDs the data would be gone."""
    cascading = {
        p.split("/")[-1].removesuffix(".yaml")
        for p, entry in objects("Application")
        if entry["metadata"].get("finalizers")
    }
    assert {"mlflow", "tuneyard-operator", "nemo-evaluator", "models", "platform"} <= cascading
    assert not cascading & {
        "nim-operator",
        "tuneyard-crds",
        "milvus",
        "nemo-data-store",
        "namespaces",
        "fine-tuning",
    }


def test_no_secret_has_a_value() -> None:
    for path, entry in objects("Secret"):
        assert set(entry["stringData"]) <= {"type", "url", "name", "enableOCI"}, path
    assert not [
        f
        for name in ENVIRONMENTS
        for f in build(ROOT / f"environments/{name}.yaml", ROOT).findings
        if f.severity is Severity.ERROR
    ]
