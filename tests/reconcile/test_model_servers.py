# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG002  a fake takes what the port gives
"""What an inference server says, and what is made of it: which replicas, not yet, which version, what is wrong."""

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tuneyard_api.serving import Destination
from tuneyard_operator.adapters.replicas import Replicas, port_name, ready_hosts
from tuneyard_operator.adapters.servers import HttpModelServers
from tuneyard_operator.domain.observed import AskedAdapter, ReplicaAnswer
from tuneyard_operator.ports import ClusterError
from tuneyard_sync.status import AdapterStatus, StatusServer, SyncStatus

DIGEST = "d" * 64
TUNED = AskedAdapter("tuned", DIGEST)
REPLACED = AskedAdapter("tuned", DIGEST, replaces=True)
CHOICES = (200, {"choices": [{"text": "x"}]})
NOT_FOUND = (404, {"error": {"message": "The model `tuned` does not exist.", "code": 404}})


class FakeReplicas(Replicas):
    """Replicas whose addresses are known."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def of(self, endpoint: str) -> tuple[str, ...]:
        return self.addresses or (endpoint,)


def listing(root: str | None = None) -> tuple[int, Any]:
    models = [{"id": "base", "root": "Qwen/Qwen2.5-7B"}]
    return 200, {"data": models + ([{"id": "tuned", "root": root, "parent": "base"}] if root else [])}


def ask(
    answers: dict[str, tuple[int, Any]], adapter: AskedAdapter = TUNED, server: Any = "vllm"
) -> tuple[ReplicaAnswer, list[tuple[str, Any]]]:
    """The answer of one replica that answers from a table, and what it was asked."""
    asked: list[tuple[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        asked.append((f"{request.method} {request.path}", body))
        status, said = answers.get(f"{request.method} {request.path}", (404, {"detail": "Not Found"}))
        if isinstance(said, str):
            return web.Response(text=said, status=status)
        return web.json_response(said, status=status)

    async def run() -> ReplicaAnswer:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        async with TestServer(app) as running, aiohttp.ClientSession() as session:
            servers = HttpModelServers(session, FakeReplicas())
            (one,) = await servers.ask(Destination(str(running.make_url("/")), server), adapter)
            return one

    return asyncio.run(run()), asked


def test_the_completion_comes_first_as_vllm_lists_an_adapter_only_after_a_request_has_named_it() -> None:
    answer, asked = ask(
        {"POST /v1/completions": CHOICES, "GET /v1/models": listing(f"/a/.store/tuned/{DIGEST}")}
    )
    assert (answer.completed, answer.problem) == (True, "")
    assert asked[0] == ("POST /v1/completions", {"model": "tuned", "prompt": "Hello", "max_tokens": 1})


def test_404_means_not_yet() -> None:
    answer, asked = ask({"POST /v1/completions": NOT_FOUND})
    assert (answer.completed, answer.is_reached, answer.problem) == (False, True, "does not have tuned yet")
    assert [what for what, _ in asked] == ["POST /v1/completions"]


@pytest.mark.parametrize(
    ("completion", "problem"),
    [
        ((500, "boom"), "a completion answered 500: boom"),
        ((200, {"choices": []}), "a completion has no choices"),
        ((200, "no json"), "JSONDecodeError"),
        ((200, {"models": []}), "KeyError: 'choices'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(completion: tuple[int, Any], problem: str) -> None:
    answer, _ = ask({"POST /v1/completions": completion})
    assert not answer.completed
    assert answer.problem.startswith(problem)


def test_a_server_that_answers_with_another_version_does_not_serve_this_one() -> None:
    other = f"/a/.store/tuned/{'e' * 64}"
    answer, _ = ask({"POST /v1/completions": CHOICES, "GET /v1/models": listing(other)})
    assert (answer.completed, answer.problem) == (False, f"answers with another version ({other})")


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (
            AdapterStatus(name="tuned", digest=f"sha256:{DIGEST}", refused="unlike"),
            "has refused this version: unlike",
        ),
        (
            AdapterStatus(name="tuned", digest=f"sha256:{'e' * 64}", refused="unlike"),
            "answers with another version",
        ),
        (AdapterStatus(name="tuned", digest=f"sha256:{DIGEST}"), "answers with another version"),
        (None, "answers with another version"),
    ],
    ids=["this version", "an earlier one", "not tried yet", "nobody beside it"],
)
def test_a_replica_that_was_tried_and_refused_the_version_says_why(
    monkeypatch: pytest.MonkeyPatch, told: AdapterStatus | None, problem: str
) -> None:
    beside = StatusServer(0)
    monkeypatch.setattr("tuneyard_operator.adapters.servers.STATUS_PORT", beside.port)
    beside.start()
    try:
        beside.status = SyncStatus(adapters=(told,) if told else ())
        other = f"/a/.store/tuned/{'e' * 64}"
        answer, _ = ask({"POST /v1/completions": CHOICES, "GET /v1/models": listing(other)})
    finally:
        beside.stop()
    assert answer.problem.startswith(problem)
    assert (answer.completed, answer.has_refused) == (False, problem.startswith("has refused"))


def test_a_name_that_a_resolver_loaded_is_loaded_again_by_version() -> None:
    answers = {
        "POST /v1/completions": CHOICES,
        "GET /v1/models": listing("/adapters/tuned"),
        "POST /v1/load_lora_adapter": (200, "Success"),
    }
    answer, asked = ask(answers, REPLACED)
    assert answer.completed
    path = f"/adapters/.store/tuned/{DIGEST}"
    load = {"lora_name": "tuned", "lora_path": path, "load_inplace": True}
    assert asked[-1] == ("POST /v1/load_lora_adapter", load)


@pytest.mark.parametrize(("adapter", "completed"), [(TUNED, True), (REPLACED, False)])
def test_where_the_version_is_unknown_a_new_name_counts_and_a_replaced_one_does_not(
    adapter: AskedAdapter, completed: bool
) -> None:
    answers = {"POST /v1/completions": CHOICES, "GET /v1/models": listing("/adapters/tuned")}
    answer, asked = ask(answers, adapter)
    assert answer.completed is completed
    assert ("POST /v1/load_lora_adapter" in dict(asked)) is not completed
    assert completed or "was asked to load /adapters/.store/tuned/" in answer.problem


@pytest.mark.parametrize("server", ["openai", "nim"])
def test_other_servers_are_asked_for_the_completion_alone(server: str) -> None:
    answer, asked = ask({"POST /v1/completions": CHOICES}, server=server)
    assert answer.completed
    assert [what for what, _ in asked] == ["POST /v1/completions"]


def test_a_replica_that_does_not_answer_is_named() -> None:
    async def run() -> tuple[ReplicaAnswer, ...]:
        async with aiohttp.ClientSession() as session:
            servers = HttpModelServers(session, FakeReplicas("http://127.0.0.1:1", "http://127.0.0.1:2"))
            return await servers.ask(Destination("http://tiny", "vllm"), TUNED)

    answers = asyncio.run(run())
    assert [(answer.address, answer.is_reached) for answer in answers] == [
        ("127.0.0.1:1", False),
        ("127.0.0.1:2", False),
    ]


@pytest.mark.parametrize(
    ("answer", "names"),
    [(listing(), ("base",)), ((503, "loading"), None), ((200, "no json"), None), ((200, {}), None)],
)
def test_a_server_s_list_is_known_or_not(answer: tuple[int, Any], names: tuple[str, ...] | None) -> None:
    async def run() -> tuple[str, ...] | None:
        async def respond(request: web.Request) -> web.Response:
            status, said = answer
            return (
                web.Response(text=said, status=status)
                if isinstance(said, str)
                else web.json_response(said, status=status)
            )

        app = web.Application()
        app.router.add_get("/v1/models", respond)
        async with TestServer(app) as running, aiohttp.ClientSession() as session:
            servers = HttpModelServers(session, FakeReplicas())
            return await servers.listed(Destination(str(running.make_url("/")), "vllm"))

    assert asyncio.run(run()) == names


SERVICE = {
    "spec": {"ports": [{"name": "http", "port": 8000, "targetPort": "serve"}, {"name": "m", "port": 9}]}
}
SLICE = {
    "ports": [{"name": "http", "port": 8001}, {"name": "m", "port": 9}],
    "endpoints": [
        {"addresses": ["10.0.0.1"], "conditions": {"ready": True}},
        {"addresses": ["10.0.0.2"], "conditions": {"ready": False}},
        {"addresses": ["fd00::3"], "conditions": {}},
        {"addresses": ["10.0.0.4"]},
    ],
}


class FakeCluster:
    """A cluster with one Service."""

    def __init__(self, service: Any = None, slices: Any = ()) -> None:
        self.service, self.slices = service, slices

    async def read(self, kind: str, namespace: str, name: str) -> Any:
        if isinstance(self.service, ClusterError):
            raise self.service
        return self.service if (kind, namespace, name) == ("Service", "models", "qwen") else None

    async def endpoint_slices(self, namespace: str, service: str) -> tuple[Any, ...]:
        if isinstance(self.slices, ClusterError):
            raise self.slices
        return tuple(self.slices)


EACH = ("http://10.0.0.1:8001", "http://10.0.0.4:8001", "http://[fd00::3]:8001")


@pytest.mark.parametrize(
    ("endpoint", "cluster", "addresses"),
    [
        ("http://qwen.models:8000", FakeCluster(SERVICE, (SLICE,)), EACH),
        ("http://qwen.models.svc.cluster.local:8000", FakeCluster(SERVICE, (SLICE, SLICE)), EACH),
        ("http://qwen.models:8000/llm", FakeCluster(SERVICE, (SLICE,)), tuple(f"{a}/llm" for a in EACH)),
        ("http://qwen.models:8000", FakeCluster(SERVICE, ({"endpoints": None, "ports": None},)), ()),
        ("http://qwen.models:8000", FakeCluster(SERVICE), ()),
        ("http://qwen.models:8000", FakeCluster(), ("http://qwen.models:8000",)),
        ("https://qwen.models:8000", FakeCluster(SERVICE, (SLICE,)), ("https://qwen.models:8000",)),
        ("http://llm.example.com:8000", FakeCluster(SERVICE, (SLICE,)), ("http://llm.example.com:8000",)),
        ("http://10.1.2.3:8000", FakeCluster(SERVICE, (SLICE,)), ("http://10.1.2.3:8000",)),
    ],
)
def test_a_service_is_asked_by_the_address_of_each_ready_replica(
    endpoint: str, cluster: Any, addresses: tuple[str, ...]
) -> None:
    assert asyncio.run(Replicas(cluster).of(endpoint)) == addresses


@pytest.mark.parametrize(
    "cluster", [FakeCluster(ClusterError("away")), FakeCluster(SERVICE, ClusterError("away"))]
)
def test_replicas_that_the_api_server_does_not_name_are_not_replaced_by_the_service(cluster: Any) -> None:
    async def run() -> tuple[ReplicaAnswer, ...]:
        async with aiohttp.ClientSession() as session:
            servers = HttpModelServers(session, Replicas(cluster))
            return await servers.ask(Destination("http://qwen.models:8000", "vllm"), TUNED)

    (answer,) = asyncio.run(run())
    assert (answer.address, answer.is_reached, answer.completed) == ("qwen.models:8000", False, False)
    assert answer.problem == "its replicas are not known: away"


def test_a_port_without_a_name_is_the_one_without_a_name() -> None:
    assert port_name({"spec": {"ports": [{"port": 8000}]}}, 8000) == ""
    assert ready_hosts({"ports": [{"port": 8001}], "endpoints": [{"addresses": ["10.0.0.1"]}]}, "") == [
        "10.0.0.1:8001"
    ]
