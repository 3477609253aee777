# SPDX-License-Identifier: Apache-2.0
"""A NIM gets the adapters of jobs from a registry in S3, by `adapter-sync` in its own pod, and jobs are sent to it."""

from typing import Any

import botocore.session
import pytest
from support.plans import make_job
from tuneyard.catalog import catalog, pins
from tuneyard.checks import check_stack
from tuneyard.environment.model import Environment
from tuneyard.stack.model import Stack
from tuneyard.stack.resolve import resolve
from tuneyard_api.planner import make_plan
from tuneyard_api.pod_contract import CA_VARIABLES, ENV_S3
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.serving import Destination
from tuneyard_sync.settings import Settings

Json = dict[str, Any]
BASE: Json = {"repo": "meta-llama/Llama-3.1-8B-Instruct", "revision": "0e9e39f"}
STORE: Json = {"bucket": "adapters", "endpoint": "https://s3.internal", "secret": "registry"}


def stack(lora: Json, tag: str = "1.8.6", **changes: Any) -> Stack:
    """One NIM, and one namespace of jobs with a registry in S3."""
    image = {"repository": "nvcr.io/nim/meta/llama-3.1-8b-instruct", "tag": tag}
    base: Json = {
        "name": "test",
        "preset": "nemo-microservices",
        "argocd": {"repoUrl": "https://git.example.com/gitops.git"},
        "storage": {"readWriteOnce": {"className": "fast"}},
        "gpus": {"nodes": [{"product": "NVIDIA-A100-SXM4-80GB", "gpusPerNode": 8, "memoryGiB": 80}]},
        "models": [{"name": "llama", "image": image, "lora": lora}],
        "fineTuning": {
            "runtimes": [{"name": "hf"}],
            "namespaces": [{"name": "team", "gpus": 2, "storageGiB": 500}],
            "registryS3": STORE,
        },
    }
    environment = Environment.model_validate({**base, **changes})
    return resolve(environment, catalog(environment), pins())


def one(here: Stack, kind: str) -> Json:
    found = [
        body
        for component in here.components
        if component.objects
        for body in component.objects(here)
        if body["kind"] == kind
    ]
    assert len(found) == 1
    return found[0]


def variables(container: Json) -> Json:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


@pytest.mark.parametrize("tag", ["1.8.6", "2.0.6"])
def test_its_pod_has_the_container_that_fills_the_folder_it_reads(tag: str) -> None:
    nim = one(stack({"baseModel": BASE}, tag), "NIMService")["spec"]
    (sync,) = nim["sidecarContainers"]
    values = variables(sync)
    settings = Settings.of({name: value for name, value in values.items() if isinstance(value, str)})
    assert str(settings.target_dir) == variables(nim)["NIM_PEFT_SOURCE"] == "/scratch"
    assert (settings.server, settings.s3_bucket, settings.source_dir) == ("nim", "adapters", None)
    assert (settings.base_repo, settings.base_revision) == (BASE["repo"], BASE["revision"])
    assert {values[name]["secretKeyRef"]["name"] for name in ENV_S3} == {"registry"}
    assert set(sync) <= {"name", "image", "command", "args", "env", "workingDir"}


def test_house_settings_reach_the_container() -> None:
    """Its own proxy and authorities: those of the NIM stand under the names that the NIM Operator chose."""
    digest = "sha256:" + "0" * 64
    house: Json = {
        "certificateAuthority": {"configMap": "house-ca"},
        "proxy": {"https": "http://proxy.example.com:3128"},
        "registries": {"operatorImage": f"registry.internal/tuneyard/operator@{digest}"},
        "secrets": {"imagePull": "house-pull"},
    }
    nim = one(stack({"baseModel": BASE}, **house), "NIMService")["spec"]
    (sync,) = nim["sidecarContainers"]
    values = variables(sync)
    assert values["HTTPS_PROXY"] == "http://proxy.example.com:3128"
    assert {values[name] for name in CA_VARIABLES} == {"/etc/ssl/certs/ca-certificates.crt"}
    # The NIM Operator joins the two by a colon.
    assert f"{sync['image']['repository']}:{sync['image']['tag']}" == house["registries"]["operatorImage"]
    assert nim["image"]["pullSecrets"] == ["ngc-pull", "house-pull"]


def test_the_store_of_a_mirror_of_models_is_not_taken_for_the_registry_s() -> None:
    """The NIM Operator gives a sidecar the variables of the NIM, and AWS_ENDPOINT_URL would hold where none is given."""
    mirror = {"models": {"url": "s3://nim-models", "region": "eu-1", "endpoint": "https://mirror.internal"}}
    tuning = {
        "runtimes": [{"name": "hf"}],
        "namespaces": [{"name": "team", "gpus": 2, "storageGiB": 500}],
        "registryS3": {"bucket": "adapters"},
    }
    nim = one(stack({"baseModel": BASE}, registries=mirror, fineTuning=tuning), "NIMService")["spec"]
    values = variables(nim) | variables(nim["sidecarContainers"][0])
    assert values["AWS_ENDPOINT_URL"] == "https://mirror.internal"
    session = botocore.session.Session(session_vars={})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            if isinstance(value, str):
                patch.setenv(name, value)
        client = session.create_client("s3", region_name="us-east-1")
    assert client.meta.endpoint_url == "https://s3.amazonaws.com"


def test_a_job_of_its_base_model_is_sent_to_it() -> None:
    runtime = FineTuneRuntime.model_validate(one(stack({"baseModel": BASE}), "FineTuneRuntime"))
    (served,) = runtime.spec.served_models
    assert (served.server, served.namespaces) == ("nim", None)
    plan = make_plan(make_job(model={"huggingFace": {"repo": BASE["repo"]}}), runtime)
    address = "http://llama.models.svc.cluster.local:8000"
    assert plan.destination == Destination(address, "nim", "meta/llama-3.1-8b-instruct")


def test_a_job_picks_a_nim_by_the_name_of_its_nimservice() -> None:
    here = stack({"baseModel": BASE})
    runtime = FineTuneRuntime.model_validate(one(here, "FineTuneRuntime"))
    service = one(here, "NIMService")["metadata"]
    job = make_job(model={"huggingFace": {"repo": BASE["repo"]}}, serve={"model": service["name"]})
    destination = make_plan(job, runtime).destination
    assert destination is not None
    assert destination.endpoint == f"http://{service['name']}.{service['namespace']}.svc.cluster.local:8000"


def test_the_secret_of_the_registry_is_expected_beside_it() -> None:
    here = stack({"baseModel": BASE})
    component = here.component("model-llama")
    assert component
    assert ("registry", "models") in {(each.name, each.namespace) for each in component.secrets(here)}


@pytest.mark.parametrize(
    ("lora", "changes"),
    [
        ({}, {}),
        ({"baseModel": BASE}, {"fineTuning": {"runtimes": [{"name": "hf"}], "namespaces": []}}),
    ],
    ids=["no base model", "no registry in S3"],
)
def test_without_a_base_or_a_registry_no_job_is_sent_to_it_and_check_says_so(
    lora: Json, changes: Json
) -> None:
    here = stack(lora, **changes)
    nim = one(here, "NIMService")["spec"]
    assert "sidecarContainers" not in nim
    assert variables(nim)["NIM_PEFT_SOURCE"] == "/model-store/loras"
    rules = [each for each in check_stack(here) if each.rule == "nim-folder-is-filled"]
    assert [each.path for each in rules] == [("models", 0, "lora", "source")]


def test_a_filled_folder_is_no_warning() -> None:
    assert "nim-folder-is-filled" not in {each.rule for each in check_stack(stack({"baseModel": BASE}))}


IN_STORES: Json = {
    "runtimes": [{"name": "hf", "publishTo": "data-store"}],
    "namespaces": [{"name": "team", "gpus": 2, "storageGiB": 500}],
}


def test_a_job_reaches_a_nim_by_way_of_the_stores_of_nemo() -> None:
    here = stack({"source": "entity-store", "baseModel": BASE}, fineTuning=IN_STORES)
    nim = one(here, "NIMService")["spec"]
    runtime = FineTuneRuntime.model_validate(one(here, "FineTuneRuntime"))
    registry = runtime.spec.defaults.registry_data_store
    assert registry is not None
    assert variables(nim)["NIM_PEFT_SOURCE"] == registry.entity_store
    assert "sidecarContainers" not in nim
    plan = make_plan(make_job(model={"huggingFace": {"repo": BASE["repo"]}}), runtime)
    address = "http://llama.models.svc.cluster.local:8000"
    assert plan.destination == Destination(address, "nim", "meta/llama-3.1-8b-instruct")
    assert plan.resolved.registry_data_store is not None
    assert plan.resolved.registry_data_store.base_model == "meta/llama-3.1-8b-instruct"


def test_a_nim_that_reads_the_entity_store_gets_nothing_of_another_registry() -> None:
    runtime = one(stack({"source": "entity-store", "baseModel": BASE}), "FineTuneRuntime")
    assert "servedModels" not in runtime["spec"]


def test_a_runtime_that_publishes_to_the_stores_brings_them_along() -> None:
    here = stack({}, preset="open", fineTuning=IN_STORES)
    assert here.component("nemo-data-store")
    assert here.component("nemo-entity-store")
    assert not here.component("workflow-templates"), "no form moves a name in a Data Store"
