# SPDX-License-Identifier: Apache-2.0
"""Stands between an unmodified operator and the API server, and does what networks and API servers do on bad days.

It runs in a thread of its own. Hooks are called in that thread: `answer` before a request is passed on, `wrote` after a
write was carried out and before its answer is passed on, `stream` for each event of a watch.
"""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web
from tuneyard_local.cluster import Cluster

_LONGEST_LINE = 1 << 21
_NOT_PASSED_ON = {"host", "content-length", "transfer-encoding", "connection", "accept-encoding"}


@dataclass(frozen=True)
class Call:
    """A request of the operator."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any = None
    at: float = field(default_factory=time.monotonic)

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "true"

    @property
    def is_write(self) -> bool:
        """Whether the call is a write other than to the lease."""
        return self.method != "GET" and "/leases" not in self.path

    @property
    def plural(self) -> str:
        """The resource, such as `pods` or `finetunejobs/status`."""
        words = self.path.split("/")
        return "finetunejobs/status" if words[-1] == "status" else words[-1 if self.method == "POST" else -2]


@dataclass(frozen=True)
class Instead:
    """An answer that does not come from the API server."""

    status: int
    retry_after: str = ""

    def response(self) -> web.Response:
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": self.status,
            "message": "a fault was injected",
        }
        headers = {"Retry-After": self.retry_after} if self.retry_after else {}
        return web.json_response(body, status=self.status, headers=headers)


class Cut(Exception):  # noqa: N818  an order, not an error
    """Raised by a hook: the connection is cut at once."""


Event = dict[str, Any]
Answer = Callable[[Call], Instead | float | None]
"""The answer to give instead, the seconds to wait first, or nothing."""
Stream = Callable[[Call, Event], Iterable[Event | float]]
"""The replacement of an event: events, and pauses in seconds between them."""


class FaultProxy:
    """`with FaultProxy(cluster) as proxy:` listens on loopback."""

    def __init__(self, cluster: Cluster) -> None:
        self._upstream = cluster.plan.server
        self._context = ssl.create_default_context(cafile=str(cluster.folder.certificates / "ca.crt"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.url = ""
        self.calls: list[tuple[Call, int]] = []
        """Requests and the status of their answers, watches left out."""
        self.restore()

    def restore(self) -> None:
        """Remove all faults."""
        self.answer: Answer = lambda _: None
        self.wrote: Callable[[Call, int], None] = lambda *_: None
        self.stream: Stream = lambda _, event: (event,)

    def writes(self) -> list[tuple[Call, int]]:
        return [(call, status) for call, status in self.calls if call.is_write]

    def kubeconfig(self, original: Path, folder: Path, namespace: str = "default") -> Path:
        """A kubeconfig that leads here; `namespace` is where the operator's lease is."""
        config = yaml.safe_load(original.read_text())
        for cluster in config["clusters"]:
            cluster["cluster"] = {"server": self.url}
        for context in config["contexts"]:
            context["context"]["namespace"] = namespace
        path = folder / f"proxied-{namespace}-{id(self)}.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(60)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._context, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, connect=30),
            read_bufsize=_LONGEST_LINE,
            auto_decompress=True,
        )
        app = web.Application(client_max_size=_LONGEST_LINE)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()
        await asyncio.sleep(
            0.25
        )  # TLS connections close a moment after their session (aiohttp's documentation)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw) if raw else None
        call = Call(request.method, request.path, dict(request.query), body)
        try:
            fault = self.answer(call)
            if isinstance(fault, Instead):
                self.calls.append((call, fault.status))
                return fault.response()
            if fault is not None:
                await asyncio.sleep(fault)
            headers = {
                name: value for name, value in request.headers.items() if name.lower() not in _NOT_PASSED_ON
            }
            async with self._session.request(
                request.method, self._upstream + request.path_qs, data=raw or None, headers=headers
            ) as answer:
                if call.is_watch and answer.status == web.HTTPOk.status_code:
                    return await self._watch(call, request, answer)
                content = await answer.read()
                self.calls.append((call, answer.status))
                if call.is_write:
                    self.wrote(call, answer.status)
                kept = {
                    name: value
                    for name, value in answer.headers.items()
                    if name in {"Content-Type", "Retry-After"}
                }
                return web.Response(body=content, status=answer.status, headers=kept)
        except (Cut, aiohttp.ClientError, OSError):
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)

    async def _watch(
        self, call: Call, request: web.Request, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        async for line in answer.content:
            for part in self.stream(call, json.loads(line)):
                if isinstance(part, float):
                    await asyncio.sleep(part)
                else:
                    await response.write(json.dumps(part).encode() + b"\n")
        return response
