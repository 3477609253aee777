# SPDX-License-Identifier: Apache-2.0
"""The middleware that vLLM gets: everybody may infer, only the pod itself may load adapters."""

import asyncio
from typing import Any

import pytest
from tuneyard.catalog.inference_only import InferenceOnly

POD, LOCAL = ("10.1.2.3", 4711), ("127.0.0.1", 4711)


def status(path: str, client: tuple[str, int] | None, root_path: str = "") -> int:
    """The status that a client gets from an application that answers 200 to everything."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "path": root_path + path, "root_path": root_path, "client": client}
    asyncio.run(InferenceOnly(app)(scope, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    "path", ["/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/metrics", "/tokenize"]
)
def test_everybody_may_infer_probe_and_measure(path: str) -> None:
    assert status(path, POD) == 200
    assert status(path, POD, root_path="/llm") == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/adapters",
        "/adapters/a",
        "/v1/models/",
        "/sleep",
        "//v1/models",
    ],
)
def test_only_the_pod_itself_reaches_the_rest(path: str) -> None:
    assert status(path, POD) == 403
    assert status(path, POD, root_path="/llm") == 403
    assert status(path, None) == 403
    assert status(path, LOCAL) == 200
    assert status(path, ("::1", 1)) == 200


def test_what_is_no_request_passes() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(InferenceOnly(app)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]
