# SPDX-License-Identifier: Apache-2.0
"""Clients that we did not write use the double of NeMo microservices v1: NVIDIA's own, which checks each answer, and the hub's."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, cast

import httpx
import pytest
from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from nemo_microservices import (
    APIConnectionError,
    AuthenticationError,
    ConflictError,
    InternalServerError,
    NeMoMicroservices,
    NotFoundError,
    UnprocessableEntityError,
)
from nemo_microservices.types import CustomizationTrainingOptionParam
from nemo_microservices.types.customization import HyperparametersParam
from support.nemo.double import NemoDouble, served
from support.nemo.wire import Fault

# The hub's client sends files in a way that its own HTTP library warns about.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")

ANY = "any"
RECORDS = b'{"prompt": "Capital of Japan?", "completion": "Tokyo"}\n' * 40
OPTION: CustomizationTrainingOptionParam = {
    "training_type": "sft",
    "finetuning_type": "lora",
    "num_gpus": 1,
    "micro_batch_size": 1,
}
TARGET = "meta/llama-3.2-1b-instruct@2.0"
CONFIG = "meta/llama-3.2-1b-instruct@v1.0.0+A100"


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def double(clock: Clock) -> NemoDouble:
    return NemoDouble(now=clock)


@pytest.fixture
def address(double: NemoDouble) -> Iterator[str]:
    with served(double) as base:
        yield base


def sdk(address: str) -> NeMoMicroservices:
    return NeMoMicroservices(base_url=address, max_retries=0, _strict_response_validation=True)


def hub(address: str, monkeypatch: pytest.MonkeyPatch, token: str = ANY) -> HfApi:
    """The hub's client, speaking LFS, as the Data Store has no Xet."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return HfApi(endpoint=f"{address}/v1/hf", token=token)


def with_data(address: str, monkeypatch: pytest.MonkeyPatch) -> NeMoMicroservices:
    """A namespace with a data set in the Data Store and the Entity Store, a target and a config."""
    client, api = sdk(address), hub(address, monkeypatch)
    client.namespaces.create(id="team")
    assert httpx.post(f"{address}/v1/datastore/namespaces", data={"namespace": "team"}).status_code == 201
    api.create_repo("team/capitals", repo_type="dataset")
    for split in ("training", "validation"):
        api.upload_file(
            path_or_fileobj=RECORDS,
            path_in_repo=f"{split}/records.jsonl",
            repo_id="team/capitals",
            repo_type="dataset",
        )
    client.datasets.create(name="capitals", namespace="team", files_url="hf://datasets/team/capitals")
    namespace, name = TARGET.split("/")
    client.customization.targets.create(
        name=name, namespace=namespace, num_parameters=10**9, precision="bf16-mixed", base_model="meta/llama"
    )
    name = CONFIG.split("/")[1]
    client.customization.configs.create(
        name=name, namespace=namespace, target=TARGET, max_seq_length=4096, training_options=[OPTION]
    )
    return client


def start(client: NeMoMicroservices, name: str = "capitals-1") -> str:
    job = client.customization.jobs.create(
        name=name,
        namespace="team",
        config=CONFIG,
        dataset={"namespace": "team", "name": "capitals"},
        hyperparameters={"finetuning_type": "lora", "training_type": "sft", "epochs": 2, "batch_size": 8},
        output_model="team/capitals@v1",
        custom_fields={"owner": "ann"},
    )
    assert job.id
    return job.id


def test_the_labs_pipeline_goes_from_a_data_set_to_a_model_and_its_scores(
    address: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = with_data(address, monkeypatch)
    job = start(client)
    seen = []
    for _ in range(12):
        details = client.customization.jobs.status(job)
        seen.append((details.status, details.percentage_done))
        clock.advance(1)
    assert [status for status, _ in dict.fromkeys(seen)][:1] == ["created"]
    assert list(dict.fromkeys(status for status, _ in seen)) == ["created", "pending", "running", "completed"]
    assert [percent for _, percent in seen] == sorted(percent or 0 for _, percent in seen)
    details = client.customization.jobs.status(job)
    assert (details.steps_completed, details.steps_per_epoch, details.epochs_completed) == (10, 5, 2)
    assert details.metrics is not None
    assert details.metrics.metrics is not None
    losses = details.metrics.metrics.train_loss or []
    assert losses[0].value is not None
    assert losses[-1].value is not None
    assert losses[0].value > losses[-1].value
    model = client.models.retrieve("capitals@v1", namespace="team")
    assert model.artifact is not None
    assert (model.artifact.status, model.artifact.files_url) == ("upload_completed", "hf://team/capitals@v1")
    api = hub(address, monkeypatch)
    assert set(api.list_repo_files("team/capitals", revision="v1")) == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    evaluation = client.evaluation.jobs.create(
        namespace="team",
        config={
            "type": "custom",
            "tasks": {"qa": {"type": "completion", "metrics": {"rouge": {"type": "rouge"}}}},
        },
        target={"type": "model", "model": "team/capitals@v1"},
    )
    clock.advance(4)
    assert evaluation.id
    assert client.evaluation.jobs.status(evaluation.id).progress == 100
    result = client.evaluation.jobs.results(evaluation.id)
    assert result.tasks is not None
    assert result.tasks["qa"].metrics is not None
    scores = result.tasks["qa"].metrics["rouge"].scores or {}
    assert {name: score.value for name, score in scores.items()} == {"rouge_l_score": 0.5}


def test_files_go_by_lfs_or_in_the_commit_and_come_back_as_they_were(
    double: NemoDouble, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = hub(address, monkeypatch)
    api.create_repo("team/m", repo_type="model")
    api.create_repo("team/m", repo_type="model", exist_ok=True)
    folder = tmp_path / "files"
    folder.mkdir()
    contents = {
        "adapter_config.json": b"{}",
        "adapter_model.safetensors": b"w" * 4000,
        "big.jsonl": b"x" * 11_000_000,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    api.upload_folder(repo_id="team/m", folder_path=folder, commit_message="all")
    assert len(double.store.large) == 2
    assert double.store.repositories["model", "team/m"].commits == ["all"]
    for name, content in contents.items():
        cache = tmp_path / "cache"
        path = hf_hub_download("team/m", name, endpoint=api.endpoint, cache_dir=cache, token=ANY)
        assert Path(path).read_bytes() == content


def test_lists_are_filtered_by_namespace_and_come_in_pages(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = with_data(address, monkeypatch)
    names = {f"job-{number}" for number in range(25)}
    for name in sorted(names):
        start(client, name)
    assert {
        job.model_dump()["name"] for job in client.customization.jobs.list(filter={"namespace": "team"})
    } == names
    assert list(client.customization.jobs.list(filter={"namespace": "other"})) == []
    assert [config.name for config in client.customization.configs.list()] == [CONFIG.split("/")[1]]


def test_a_job_is_cancelled_once(address: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    client = with_data(address, monkeypatch)
    job = start(client)
    clock.advance(4)
    assert client.customization.jobs.cancel(job).status == "cancelling"
    clock.advance(2)
    assert client.customization.jobs.retrieve(job).status == "cancelled"
    with pytest.raises(ConflictError):
        client.customization.jobs.cancel(job)
    assert list(client.models.list()) == []


def test_a_job_that_fails_says_why(
    double: NemoDouble, address: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = with_data(address, monkeypatch)
    double.customizer.failures["capitals-1"] = "CUDA out of memory"
    job = start(client)
    clock.advance(20)
    details = client.customization.jobs.status(job)
    assert details.status == "failed"
    assert details.status_logs is not None
    assert details.status_logs[-1].detail == "CUDA out of memory"


def test_what_is_wrong_is_answered_by_the_codes_that_the_clients_know(
    double: NemoDouble, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = with_data(address, monkeypatch)
    with pytest.raises(ConflictError):
        client.namespaces.create(id="team")
    with pytest.raises(NotFoundError):
        client.customization.jobs.retrieve("cust-none")
    start(client)
    with pytest.raises(ConflictError):
        start(client)
    with pytest.raises(NotFoundError):
        client.customization.jobs.create(
            config="meta/none", dataset="team/capitals", hyperparameters={"finetuning_type": "lora"}
        )
    with pytest.raises(UnprocessableEntityError):
        client.customization.jobs.create(
            config=CONFIG,
            dataset="team/capitals",
            hyperparameters=cast("HyperparametersParam", {"finetuning_type": "x"}),
        )
    double.token = "right"
    with pytest.raises(AuthenticationError):
        client.datasets.list()
    with pytest.raises(HfHubHTTPError):
        hub(address, monkeypatch, "wrong").list_repo_files("team/capitals", repo_type="dataset")
    assert hub(address, monkeypatch, "right").list_repo_files("team/capitals", repo_type="dataset")


@pytest.mark.parametrize("answer", [503, "cut", "lost"])
def test_a_fault_hits_as_many_requests_as_it_was_switched_on_for(
    double: NemoDouble, address: str, answer: int | Literal["cut", "lost"], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = with_data(address, monkeypatch)
    double.faults.append(Fault("POST", "/customization/jobs$", answer))
    with pytest.raises((InternalServerError, APIConnectionError)):
        start(client)
    assert len(double.customizer.jobs) == (1 if answer == "lost" else 0)
    start(client, "capitals-2")


def test_an_upload_that_is_cut_leaves_no_commit(
    double: NemoDouble, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = hub(address, monkeypatch)
    api.create_repo("team/d", repo_type="dataset")
    double.faults.append(Fault("POST", "/commit/", "cut"))
    with pytest.raises(Exception, match=r"(?i)disconnected|closed|response"):
        api.upload_file(
            path_or_fileobj=RECORDS, path_in_repo="a.jsonl", repo_id="team/d", repo_type="dataset"
        )
    assert double.store.repositories["dataset", "team/d"].trees["main"] == {}
