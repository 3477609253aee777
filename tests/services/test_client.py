# SPDX-License-Identifier: Apache-2.0
"""The operator's client of NeMo services over real sockets, and what it makes of every answer."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
from nemo_microservices import NeMoMicroservices
from support.nemo.data_store import Repository
from support.nemo.double import NemoDouble, served
from support.nemo.wire import Fault
from support.world.services import ServiceWorld
from tuneyard_api import reasons
from tuneyard_operator.adapters import nemo, service_calls
from tuneyard_operator.adapters.nemo import Answer, NemoV1, trouble_of
from tuneyard_operator.adapters.service_calls import ServiceCalls
from tuneyard_operator.domain.customizations import Order
from tuneyard_operator.ports import ServiceError

Result = TypeVar("Result")
FIELDS = {"tuneyard.io/uid": "uid-a"}


@pytest.fixture
def double() -> NemoDouble:
    double = NemoDouble()
    double.customizer.targets.create(
        {"namespace": "meta", "name": "tiny@1.0", "num_parameters": 1000, "precision": "bf16"},
        model_path="tiny",
    )
    option = {"training_type": "sft", "finetuning_type": "lora", "num_gpus": 1, "micro_batch_size": 1}
    double.customizer.configs.create(
        {
            "namespace": "team",
            "name": "c",
            "target": "meta/tiny@1.0",
            "max_seq_length": 64,
            "training_options": [option],
        }
    )
    double.entities.kinds["datasets"].create(
        {"namespace": "team", "name": "d", "files_url": "hf://datasets/team/d"}
    )
    repository = double.store.repositories["dataset", "team/d"] = Repository()
    repository.commit("main", {"training/a.jsonl": b"{}\n" * 16}, "data")
    return double


@pytest.fixture
def address(double: NemoDouble) -> Iterator[str]:
    with served(double) as base:
        yield base


def order(address: str, name: str = "a-1") -> Order:
    body = {
        "namespace": "team",
        "name": name,
        "config": "team/c",
        "dataset": {"namespace": "team", "name": "d"},
        "hyperparameters": {"finetuning_type": "lora", "training_type": "sft", "epochs": 2, "batch_size": 8},
        "output_model": "team/a@v1",
        "custom_fields": FIELDS,
    }
    return Order(address, name, (), body)


def with_client(work: Callable[[NemoV1], Awaitable[Result]], token_file: str = "") -> Result:
    async def run() -> Result:
        async with aiohttp.ClientSession() as session:
            calls = ServiceCalls(session, token_file)
            return await work(NemoV1(calls, calls.token))

    return asyncio.run(run())


def test_a_job_is_made_followed_and_cancelled(double: NemoDouble, address: str) -> None:
    async def work(client: NemoV1) -> list[str]:
        await client.submit(order(address))
        (seen,) = await client.customizations(address, "team", "uid-a")
        assert (seen.name, seen.made_for, seen.of, seen.state) == ("a-1", "uid-a", 4, "waiting")
        one = await client.customization(address, seen.id)
        assert one is not None
        assert one.id == seen.id
        await client.cancel(address, seen.id)
        await client.cancel(address, "cust-unknown")
        assert await client.customization(address, "cust-unknown") is None
        assert await client.customizations(address, "team", "another") == ()
        return [job["status"] for job in double.customizer.jobs.values()]

    assert with_client(work) == ["cancelling"]


def test_all_pages_of_a_namespace_are_read(
    double: NemoDouble, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nemo, "_PAGE_SIZE", 10)

    async def work(client: NemoV1) -> int:
        for number in range(23):
            await client.submit(order(address, f"a-{number}"))
        return len(await client.customizations(address, "team", "uid-a"))

    assert with_client(work) == 23
    assert len([each for each in double.requests if each == ("GET", "/v1/customization/jobs")]) == 3


def test_nvidias_client_sees_what_the_operator_made_and_the_other_way_round(
    double: NemoDouble, address: str
) -> None:
    theirs = NeMoMicroservices(base_url=address, max_retries=0, _strict_response_validation=True)
    with_client(lambda client: client.submit(order(address)))
    (job,) = list(theirs.customization.jobs.list(filter={"namespace": "team"}))
    assert (job.output_model, job.custom_fields) == ("team/a@v1", FIELDS)
    theirs.customization.jobs.create(
        name="by-hand",
        namespace="team",
        config="team/c",
        dataset="team/d",
        hyperparameters={"finetuning_type": "lora", "training_type": "sft"},
        custom_fields={"tuneyard.io/uid": "uid-b"},
    )
    (seen,) = with_client(lambda client: client.customizations(address, "team", "uid-b"))
    assert seen.name == "by-hand"


def test_nvidias_client_sees_the_whole_pipeline_of_a_job() -> None:
    world = ServiceWorld()
    world.prepare()
    world.go_on(20)
    with served(world.nemo) as address:
        theirs = NeMoMicroservices(base_url=address, max_retries=0, _strict_response_validation=True)
        (job,) = list(theirs.customization.jobs.list())
        assert job.status == "completed"
        assert job.hyperparameters is not None
        assert job.hyperparameters.lora is not None
        assert job.hyperparameters.lora.adapter_dim == 16
        assert [config.max_seq_length for config in theirs.customization.configs.list()] == [1024]
        (dataset,) = list(theirs.datasets.list())
        assert dataset.files_url.startswith("hf://datasets/team/a-")
        assert job.output_model is not None
        namespace, name = job.output_model.split("/")
        model = theirs.models.retrieve(name, namespace=namespace)
        assert model.artifact is not None
        assert world.status.result is not None
        assert world.status.result.adapter is not None
        assert world.status.result.adapter.path == model.artifact.files_url


def trouble(address: str, token_file: str = "") -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        with_client(lambda client: client.customizations(address, "team", "uid-a"), token_file)
    return caught.value


def test_nobody_there_cut_and_slow(double: NemoDouble, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trouble("http://127.0.0.1:9").trouble.reason == reasons.SERVICE_UNAVAILABLE
    # The client's library repeats a GET once by itself when its connection is closed.
    double.faults.append(Fault("GET", "/jobs", "cut", times=2))
    assert trouble(address).trouble.reason == reasons.SERVICE_UNAVAILABLE
    monkeypatch.setattr(service_calls, "_TIMEOUT", aiohttp.ClientTimeout(total=0.1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = trouble(f"http://127.0.0.1:{silent.getsockname()[1]}").trouble
    assert said.reason == reasons.SERVICE_UNAVAILABLE
    assert "Timeout" in said.message


def test_the_token_is_read_from_its_file_each_time_and_said_nowhere(
    double: NemoDouble, address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = tmp_path / "token"
    double.token = "the-right-token"
    assert trouble(address, str(token)).trouble.reason == reasons.SERVICE_DENIED
    token.write_text("a-wrong-token\n")
    # A service that repeats what it was sent.
    double.faults.append(Fault("GET", "/jobs", 403))
    error = trouble(address, str(token))
    assert error.trouble.reason == reasons.SERVICE_DENIED
    token.write_text("the-right-token\n")
    assert with_client(lambda client: client.customizations(address, "team", "x"), str(token)) == ()
    for secret in ("a-wrong-token", "the-right-token"):
        assert secret not in caplog.text + str(error)


def test_a_token_that_a_service_repeats_is_not_passed_on() -> None:
    async def repeats(_: str, __: str, ___: Any) -> Answer:
        return Answer(status=403, body=b'{"detail": "s3cret-token is not valid"}')

    client = NemoV1(repeats, lambda: "s3cret-token")
    with pytest.raises(ServiceError, match=r"\*\*\* is not valid") as caught:
        asyncio.run(client.customizations("http://x", "team", "u"))
    assert "s3cret" not in str(caught.value)


def test_every_status_code_has_a_reason() -> None:
    found = {
        status: trouble_of(Answer(status=status, body=b"words"), "Customizer", "http://x")
        for status in range(100, 600)
    }
    assert [status for status, each in found.items() if each is None] == [200, 201]
    by_reason: dict[str, set[int]] = {}
    for status, each in found.items():
        if each is not None:
            assert each.reason in reasons.REASONS
            assert each.message == f"answered {status}: words"
            assert each.final is (each.reason == reasons.SERVICE_REFUSED)
            by_reason.setdefault(each.reason, set()).add(status)
    assert by_reason[reasons.SERVICE_REFUSED] == {400, 422}
    assert by_reason[reasons.SERVICE_DENIED] == {401, 403}
    assert by_reason[reasons.SERVICE_LACKS] == {404}
    assert by_reason[reasons.SERVICE_UNAVAILABLE] == {408, 429, *range(500, 600)}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"data": [{"name": 5}]}', b'{"data": null}'])
def test_an_answer_of_another_form_is_said_to_be_unexpected(body: bytes) -> None:
    async def answers(_: str, __: str, ___: Any) -> Answer:
        return Answer(status=200, body=body)

    client = NemoV1(answers)
    for work in (client.customizations("http://c", "team", "u"), client.customization("http://c", "cust-1")):
        with pytest.raises(ServiceError) as caught:
            asyncio.run(work)
        assert caught.value.trouble.reason == reasons.SERVICE_UNEXPECTED
