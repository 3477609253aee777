# SPDX-License-Identifier: Apache-2.0
"""The pipeline by hand, with NVIDIA's client, and ours meet in the same stores: each sees what the other one made."""

import json
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi, constants
from nemo_microservices import NeMoMicroservices
from support.nemo.double import NemoDouble, served
from support.registry.writing import adapter
from support.world.services import ServiceWorld
from tuneyard_api import names
from tuneyard_api.data_stores import ResolvedDataStore
from tuneyard_api.pod_contract import ADAPTER_FILES, ResolvedSource
from tuneyard_api.status import State
from tuneyard_trainer.fetch.data_store import fetch_from_data_store
from tuneyard_trainer.registry.repository import RepositoryRegistry

# The hub's client sends files in a way that its own HTTP library warns about.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")


def sdk(address: str) -> NeMoMicroservices:
    return NeMoMicroservices(base_url=address, max_retries=0, _strict_response_validation=True)


def hub(address: str, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return HfApi(endpoint=f"{address}/v1/hf", token="any")


def test_a_person_finds_data_customization_and_model_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ServiceWorld()
    world.prepare()
    world.go_on(20)
    assert world.status.state is State.SUCCEEDED, world.status.message
    assert world.status.result is not None
    dataset, model = names.dataset_name("a", "uid-a"), str(world.status.result.model_name)
    with served(world.nemo) as address:
        client, api = sdk(address), hub(address, monkeypatch)
        assert client.namespaces.retrieve("team").id == "team"
        assert (
            client.datasets.retrieve(dataset, namespace="team").files_url == f"hf://datasets/team/{dataset}"
        )
        (job,) = client.customization.jobs.list(filter={"namespace": "team"})
        assert (job.status, job.output_model) == ("completed", model)
        entity = client.models.retrieve(model.partition("/")[2], namespace="team")
        assert entity.artifact is not None
        assert entity.artifact.files_url == world.status.result.adapter.path  # type: ignore[union-attr]
        repo, _, revision = model.partition("@")
        assert set(api.list_repo_files(repo, revision=revision)) == set(ADAPTER_FILES)
        evaluation = client.evaluation.jobs.create(
            namespace="team",
            config={
                "type": "custom",
                "tasks": {"qa": {"type": "completion", "metrics": {"rouge": {"type": "rouge"}}}},
            },
            target={"type": "model", "model": model},
        )
        assert evaluation.id


def test_a_person_finds_what_a_training_in_pods_has_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, content = adapter(tmp_path / "files", "answers")
    with served(NemoDouble()) as address:
        place = ResolvedDataStore(endpoint=address, entity_store=address, base_model="meta/tiny")
        registry = RepositoryRegistry.of(place, "team", {}, tmp_path)
        registry.publish(version, content, "mine", replace=False)
        (entity,) = sdk(address).models.list()
        assert f"{entity.namespace}/{entity.name}" == registry.listed_as(version)
        assert entity.artifact is not None
        repo, _, commit = entity.artifact.files_url.removeprefix("hf://").partition("@")
        for name in ADAPTER_FILES:
            got = hub(address, monkeypatch).hf_hub_download(
                repo, name, revision=commit, cache_dir=tmp_path / "got"
            )
            assert Path(got).read_bytes() == (content.files / name).read_bytes()


def test_a_job_reads_what_a_person_has_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = b"".join(json.dumps({"prompt": f"q{n}", "completion": "a"}).encode() + b"\n" for n in range(3))
    with served(NemoDouble()) as address:
        sdk(address).namespaces.create(id="team")
        assert httpx.post(f"{address}/v1/datastore/namespaces", data={"namespace": "team"}).status_code == 201
        api = hub(address, monkeypatch)
        api.create_repo("team/answers", repo_type="dataset")
        api.upload_file(
            path_or_fileobj=records,
            path_in_repo="training/t.jsonl",
            repo_id="team/answers",
            repo_type="dataset",
        )
        source = ResolvedSource(
            data_store=address, repo="team/answers", revision="main", path="training/t.jsonl"
        )
        assert fetch_from_data_store(source, tmp_path, None).read_bytes() == records


def test_a_job_leaves_the_customization_of_a_person_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ServiceWorld()
    world.prepare()
    with served(world.nemo) as address:
        client = sdk(address)
        theirs = client.customization.jobs.create(
            name="by-hand",
            namespace="team",
            config=str(world.customizations[0]["config"]["namespace"])
            + "/"
            + str(world.customizations[0]["config"]["name"]),
            dataset={"namespace": "team", "name": names.dataset_name("a", "uid-a")},
            hyperparameters={"finetuning_type": "lora", "training_type": "sft", "epochs": 1, "batch_size": 8},
            output_model="team/by-hand@v1",
        )
    world.go_on(30)
    assert world.status.state is State.SUCCEEDED, world.status.message
    assert {job["name"]: status for job, status in zip(world.customizations, world.states, strict=True)} == {
        names.customization_name("a", "uid-a", 1): "completed",
        theirs.name: "completed",
    }
