# SPDX-License-Identifier: Apache-2.0
"""An endpoint that lists every adapter and answers every completion, for runs with --serve."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def stub_endpoint(adapters: Iterable[str]) -> AsyncIterator[str]:
    """Its base URL on loopback, while it runs."""
    models = {"object": "list", "data": [{"id": name, "object": "model"} for name in adapters]}

    async def list_models(_: web.Request) -> web.Response:
        return web.json_response(models)

    async def complete(_: web.Request) -> web.Response:
        return web.json_response({"object": "text_completion", "choices": [{"index": 0, "text": "!"}]})

    app = web.Application()
    app.add_routes([web.get("/v1/models", list_models), web.post("/v1/completions", complete)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()
