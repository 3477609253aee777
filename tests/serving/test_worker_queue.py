# SPDX-License-Identifier: Apache-2.0
"""Queue, cancellation and readiness over HTTP, with an engine that the test holds back; no PyTorch."""

import asyncio
import io
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from tuneyard_server.app import FAILED, WORKER, build_app
from tuneyard_server.settings import Settings, parse_settings

BODY = {"model": "base", "prompt": "x"}


@dataclass(frozen=True)
class Said:
    text: str
    finish_reason: str = "stop"
    prompt_tokens: int = 1
    completion_tokens: int = 1


@dataclass
class HeldEngine:
    """Answers with its prompt, once `go` is set; counts how many generate at once."""

    go: threading.Event = field(default_factory=threading.Event)
    order: list[str] = field(default_factory=list)
    running: int = 0
    most: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)

    def encode_prompt(self, prompt: str) -> str:
        return prompt

    def check_length(self, *_: Any) -> int:
        return 1

    def generate(self, _handle: None, ids: str, *_: Any, is_cancelled: Callable[[], bool], **__: Any) -> Said:
        self.running += 1
        self.most = max(self.most, self.running)
        while not self.go.wait(0.01):
            if is_cancelled():
                self.cancelled.set()
                break
        self.order.append(ids)
        self.running -= 1
        if ids == "bug":
            raise RuntimeError("secret detail")
        return Said(ids)


def serve(
    test: Callable[[TestClient[Any, Any]], Awaitable[None]], load: Callable[[], Any], queue: int = 3
) -> None:
    async def run() -> None:
        app = build_app(Settings(Path("/model"), "base", None, queue=queue))
        app[WORKER]._load_engine = load  # type: ignore[method-assign]
        async with TestClient(TestServer(app, handler_cancellation=True)) as client:
            await test(client)

    asyncio.run(asyncio.wait_for(run(), 60))


async def until_ready(client: TestClient[Any, Any]) -> None:
    while (await client.get("/v1/health/ready")).status != 200:  # noqa: ASYNC110  what a probe does
        await asyncio.sleep(0.01)


def test_one_at_a_time_in_order_and_one_too_many_is_told_to_come_back() -> None:
    engine = HeldEngine()

    async def test(client: TestClient[Any, Any]) -> None:
        await until_ready(client)
        waiting = []
        for number in range(3):
            waiting.append(
                asyncio.create_task(client.post("/v1/completions", json=BODY | {"prompt": str(number)}))
            )
            while client.app[WORKER]._requests <= number:  # type: ignore[index, union-attr]  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        late = await client.post("/v1/completions", json=BODY)
        assert late.status == 429
        assert late.headers["Retry-After"]
        assert (await late.json())["error"]["code"] == "queue_full"
        engine.go.set()
        texts = [(await (await task).json())["choices"][0]["text"] for task in waiting]
        assert texts == ["0", "1", "2"]
        assert (await client.post("/v1/completions", json=BODY)).status == 200

    serve(test, lambda: engine)
    assert engine.most == 1
    assert engine.order == ["0", "1", "2", "x"]


def test_a_client_that_goes_away_ends_its_generation() -> None:
    engine = HeldEngine()

    async def test(client: TestClient[Any, Any]) -> None:
        await until_ready(client)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.post("/v1/completions", json=BODY), 0.3)
        assert await asyncio.to_thread(engine.cancelled.wait, 10)
        engine.go.set()
        assert (await client.post("/v1/completions", json=BODY)).status == 200

    serve(test, lambda: engine)


def test_it_is_live_but_not_ready_while_the_model_loads() -> None:
    engine, loaded = HeldEngine(), threading.Event()

    def load() -> HeldEngine:
        loaded.wait()
        return engine

    async def test(client: TestClient[Any, Any]) -> None:
        assert (await client.get("/v1/health/live")).status == 200
        assert (await client.get("/v1/health/ready")).status == 503
        assert (await client.get("/v1/models")).status == 503
        assert (await (await client.post("/v1/completions", json=BODY)).json())["error"][
            "code"
        ] == "not_ready"
        loaded.set()
        await until_ready(client)

    serve(test, load)


def test_a_model_that_cannot_be_loaded_ends_the_process() -> None:
    def load() -> None:
        raise OSError("no model here")

    async def test(client: TestClient[Any, Any]) -> None:
        await asyncio.wait_for(client.app[FAILED].wait(), 10)  # type: ignore[index, union-attr]

    serve(test, load)


def test_a_bug_is_a_500_that_tells_nothing_and_the_next_request_is_served() -> None:
    engine = HeldEngine()
    engine.go.set()

    async def test(client: TestClient[Any, Any]) -> None:
        await until_ready(client)
        failed = await client.post("/v1/completions", json=BODY | {"prompt": "bug"})
        assert failed.status == 500
        assert "secret" not in await failed.text()
        assert (await client.post("/v1/completions", json=BODY)).status == 200

    serve(test, lambda: engine)


def test_wrong_paths_methods_and_bodies_get_errors_in_the_shape_of_openai() -> None:
    async def test(client: TestClient[Any, Any]) -> None:
        await until_ready(client)
        large = io.BytesIO(b" " * (5 << 20))
        answers = {
            404: await client.get("/v1/nothing"),
            405: await client.get("/v1/completions"),
            400: await client.post("/v1/completions", data=b"{"),
            413: await client.post("/v1/completions", data=large),
        }
        for status, answer in answers.items():
            assert answer.status == status
            assert set((await answer.json())["error"]) == {"message", "type", "param", "code"}

    serve(test, HeldEngine)


def test_flags_win_over_the_environment_of_nim(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    environment = {"NIM_PEFT_SOURCE": "/a", "NIM_PEFT_REFRESH_INTERVAL": "7", "NIM_SERVED_MODEL_NAME": "env"}
    settings = parse_settings(["--model", str(tmp_path)], environment)
    assert (settings.adapters, settings.refresh_seconds, settings.served_name) == (Path("/a"), 7.0, "env")
    flags = ["--model", str(tmp_path), "--adapters", "/b", "--refresh-seconds", "1", "--served-name", "flag"]
    settings = parse_settings(flags, environment)
    assert (settings.adapters, settings.refresh_seconds, settings.served_name) == (Path("/b"), 1.0, "flag")
    assert parse_settings(["--model", str(tmp_path)], {}).served_name == tmp_path.name


def test_a_folder_without_a_model_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_settings(["--model", str(tmp_path)], {})
    assert ended.value.code == 2
    assert "no config.json" in capsys.readouterr().err
