# SPDX-License-Identifier: Apache-2.0
"""ASGI middleware that the generator puts into vLLM: only the pod itself reaches more than inference.

Whoever reaches a vLLM that loads adapters at run time could load and unload them too. vLLM takes this module by
`--middleware` from a mounted ConfigMap, so it imports nothing. A client's address comes from the connection: uvicorn
believes forwarding headers of the loopback address alone.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"127.0.0.1", "::1"})
PATHS = frozenset(
    {
        "/detokenize",
        "/health",
        "/metrics",
        "/ping",
        "/tokenize",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/models",
        "/v1/responses",
        "/version",
    }
)
"""What everybody may ask for: inference, probes, metrics."""
_REFUSAL = b'{"error": {"message": "only the pod itself may ask for this path", "type": "PermissionDenied", "code": 403}}'


class InferenceOnly:
    """Answers 403 to every other path, unless the request comes from the loopback address."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI 3 has it."""
        if scope["type"] != "http" or is_open(scope):
            await self.app(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": _REFUSAL})


def is_open(scope: Scope) -> bool:
    """Whether the request may pass."""
    host = (scope.get("client") or ("",))[0]
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return host in LOOPBACK or path in PATHS
