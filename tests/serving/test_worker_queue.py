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
        app = build_app(Settings("/model", "base", queue=queue))
        app[WORKER]._load_engine = load  # type: ignore[method-assign]
        async with TestClient(TestServer(app, handler_cancellation=True)) as client:
            await test(client)

    asyncio.run(asyncio.wait_for(run(), 120))


async def until_ready(client: TestClient[Any, Any]) -> None:
    while (await client.get("/health")).status != 200:  # noqa: ASYNC110  what a probe does
        await asyncio.sleep(0.01)


def test_one_at_a_time_in_order_and_one_too_many_must_come_back() -> None:
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
        assert (await late.json())["error"]["type"] == "RateLimitError"
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
        asked = asyncio.create_task(client.post("/v1/completions", json=BODY))
        while not engine.running:  # noqa: ASYNC110  of another thread
            await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await asyncio.to_thread(engine.cancelled.wait, 60)
        engine.go.set()
        assert (await client.post("/v1/completions", json=BODY)).status == 200

    serve(test, lambda: engine)


def test_it_answers_but_is_not_ready_while_the_model_loads() -> None:
    engine, loaded = HeldEngine(), threading.Event()

    def load() -> HeldEngine:
        loaded.wait()
        return engine

    async def test(client: TestClient[Any, Any]) -> None:
        assert (await client.get("/health")).status == 503
        assert (await client.get("/v1/models")).status == 503
        answer = await client.post("/v1/completions", json=BODY)
        assert (await answer.json())["error"]["type"] == "ServiceUnavailableError"
        loaded.set()
        await until_ready(client)

    serve(test, load)


def test_a_model_that_cannot_be_loaded_ends_the_process() -> None:
    def load() -> None:
        raise OSError("no model here")

    async def test(client: TestClient[Any, Any]) -> None:
        await asyncio.wait_for(client.app[FAILED].wait(), 60)  # type: ignore[index, union-attr]

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
            error = (await answer.json())["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert error["code"] == status

    serve(test, HeldEngine)


def test_settings_have_the_names_of_vllm(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    model = ["--model", str(tmp_path)]
    bare = parse_settings(model, {})
    assert (bare.served_name, bare.adapters, bare.allows_updating) == (str(tmp_path), None, False)
    assert (bare.max_lora_rank, bare.max_cpu_loras) == (16, 1)
    flags = [
        "--served-model-name",
        "flag",
        "--max-lora-rank",
        "320",
        "--max-loras",
        "2",
        "--max-cpu-loras",
        "3",
    ]
    variables = {"VLLM_LORA_RESOLVER_CACHE_DIR": "/a", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    full = parse_settings([*model, *flags], variables)
    assert (full.served_name, full.adapters, full.allows_updating) == ("flag", Path("/a"), True)
    assert (full.max_lora_rank, full.max_cpu_loras) == (320, 3)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--max-lora-rank", "24"], "invalid choice: 24"),
        (["--max-loras", "8", "--max-cpu-loras", "4"], "max_cpu_loras (4) must be >= max_loras (8)"),
        (["--refresh-seconds", "0"], "must be above 0 (got 0)"),
        (["--refresh-seconds", "5"], "--refresh-seconds needs VLLM_LORA_RESOLVER_CACHE_DIR"),
    ],
    ids=["a rank that vLLM refuses", "fewer slots in memory than at once", "no interval", "no folder"],
)
def test_it_does_not_start_with_settings_that_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SystemExit) as ended:
        parse_settings(["--model", str(tmp_path), *flags], {})
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_without_a_model_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_settings(["--model", str(tmp_path)], {})
    assert ended.value.code == 2
    assert "no config.json" in capsys.readouterr().err
