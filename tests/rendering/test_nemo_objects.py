# SPDX-License-Identifier: Apache-2.0
"""NeMo's objects hold what NIM Operator 3.1.2 was seen to change, to leave out, or to bring by itself."""

from typing import Any

import pytest
from tuneyard.catalog import catalog, pins
from tuneyard.checks import check_stack
from tuneyard.environment.model import Environment
from tuneyard.render.images import images_page
from tuneyard.render.secrets import secrets_page
from tuneyard.stack.model import Stack
from tuneyard.stack.resolve import resolve
from tuneyard_api.yaml_io import load

Json = dict[str, Any]
OUTSIDE: Json = {
    "use": {"s3": "external-s3", "postgres": "external-postgres"},
    "externalS3": {"endpoint": "https://s3.internal"},
    "externalPostgres": {"host": "postgres.internal"},
}
AIR_GAP: Json = {
    "registries": {"airGapped": True, "mirror": "registry.internal", "charts": "registry.internal/charts"}
}
NIM: Json = {"repository": "nvcr.io/nim/meta/llama-3.2-1b-instruct", "tag": "1.8.6"}
HUB: Json = {"repo": "Qwen/Qwen2.5-7B-Instruct", "revision": "abc"}


def stack(**changes: Any) -> Stack:
    environment = Environment.model_validate(
        {
            "name": "t",
            "preset": "nemo-microservices",
            "argocd": {"repoUrl": "https://git.example.com/g.git"},
            "storage": {"readWriteOnce": {"className": "block"}},
            "gpus": {"nodes": [{"product": "NVIDIA-L40S", "gpusPerNode": 4, "memoryGiB": 48}]},
            **changes,
        }
    )
    return resolve(environment, catalog(environment), pins())


def one(here: Stack, kind: str) -> Json:
    return next(
        entry
        for component in here.components
        for entry in (component.objects(here) if component.objects else ())
        if entry["kind"] == kind
    )


def test_files_of_the_data_store_come_through_it_for_ever() -> None:
    """Without its finalizer in the manifest, the operator's first update makes `serveDirect: false` true."""
    store = one(stack(), "NemoDatastore")
    assert store["spec"]["objectStoreConfig"]["serveDirect"] is False
    assert store["metadata"]["finalizers"] == ["finalizer.nemodatastore.apps.nvidia.com"]


def test_no_secret_is_expected_that_nobody_reads() -> None:
    """The Data Store's object names the user of its bucket, and nobody knows that of an S3 outside."""
    outside = stack(**OUTSIDE)
    assert "objectStoreConfig" not in one(outside, "NemoDatastore")["spec"]
    assert "nemo-data-store-bucket" not in {secret.name for secret in outside.secrets()}
    assert "nemo-data-store-bucket" in {secret.name for secret in stack().secrets()}
    assert "mlflow-bucket" in {secret.name for secret in outside.secrets()}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ({"image": NIM}, "meta/llama-3.2-1b-instruct"),
        ({"image": NIM, "env": [{"name": "NIM_SERVED_MODEL_NAME", "value": "mine,other"}]}, "mine"),
        ({"image": {**NIM, "repository": "registry.internal/models/llama"}}, "base"),
        ({"engine": "vllm", "huggingFace": HUB}, "base"),
    ],
    ids=["a NIM", "a NIM with a name of its own", "a NIM from somewhere else", "vLLM"],
)
def test_guardrails_know_the_model_as_its_server_calls_it(model: Json, name: str) -> None:
    config = stack(models=[{"name": "base", **model}])
    component = config.component("nemo-guardrails")
    assert component
    assert component.objects
    (text,) = [entry["data"] for entry in component.objects(config) if entry["kind"] == "ConfigMap"]
    assert load(text["config.yml"]).value == {"models": [{"type": "main", "engine": "nim", "model": name}]}


def test_models_are_written_to_a_volume_that_belongs_to_root() -> None:
    context = one(stack(), "NemoCustomizer")["spec"]["modelDownloadJobs"]["securityContext"]
    assert context == {"fsGroup": 1000, "runAsGroup": 1000, "runAsNonRoot": True, "runAsUser": 1000}


def test_passwords_that_a_url_would_break_are_warned_of_where_people_make_them() -> None:
    """The operator writes `postgresql://user:p@ss/w:rd#1@host` as it is, of which the host is `ss`."""
    page = secrets_page(stack())
    rows = [line for line in page.splitlines() if "-database |" in line]
    assert len(rows) >= 10
    assert all("letters and digits only" in row for row in rows)


def test_images_that_the_operator_names_itself_are_in_the_list_and_warned_of() -> None:
    here = stack(**AIR_GAP)
    rows = [line for line in images_page(here, ()).splitlines() if "library/busybox" in line]
    wanted = ("nemo-entity-store", "nemo-evaluator", "nemo-guardrails")
    assert rows == [f"| {name} | docker.io/library/busybox:latest | none: see above |" for name in wanted]
    (found,) = [f for f in check_stack(here) if f.rule == "air-gap-has-fixed-image"]
    assert all(name in found.problem for name in wanted)
    assert "air-gap-has-fixed-image" not in {f.rule for f in check_stack(stack())}


def test_a_database_outside_is_asked_without_tls() -> None:
    assert "data-store-without-tls" in {f.rule for f in check_stack(stack(**OUTSIDE))}
    assert "data-store-without-tls" not in {f.rule for f in check_stack(stack())}
