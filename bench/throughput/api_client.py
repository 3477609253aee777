# SPDX-License-Identifier: Apache-2.0
"""The few calls of the benchmark itself: aiohttp and orjson, to take little of the CPU that is being measured."""

import asyncio
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
from tuneyard_local.cluster import Cluster

Object = Mapping[str, Any]

_CONNECTIONS = 24
_LONGEST_LINE = 1 << 21
"""Bytes of one watch event."""
_WATCH_SECONDS = 3600
"""Longer than any run."""
_MOST_WATCHES = 20


class MeasuringError(Exception):
    """The run can't be measured."""


class ApiClient:
    """The API server of one cluster, asked as its administrator."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session, self._server = session, server

    async def create(self, path: str, body: Object) -> None:
        """POST an object to a collection."""
        headers = {"Content-Type": "application/json"}
        async with self._session.post(
            self._server + path, data=orjson.dumps(body), headers=headers
        ) as response:
            raw = await response.read()
            if response.status != 201:
                raise MeasuringError(f"POST {path}: {response.status} {raw[:400].decode(errors='replace')}")

    async def text(self, path: str) -> str:
        """GET anything."""
        async with self._session.get(self._server + path) as response:
            response.raise_for_status()
            return await response.text()

    @asynccontextmanager
    async def watching(
        self, watches: Mapping[str, Callable[[Object], None]]
    ) -> AsyncIterator[list[asyncio.Task[None]]]:
        """Follow collections (path with label selector as query) from now on; the tasks end only by an error."""
        versions = {path: await self._version(path) for path in watches}
        tasks = [
            asyncio.create_task(self._follow(path, versions[path], see)) for path, see in watches.items()
        ]
        try:
            yield tasks
        finally:
            await cancelled(tasks)

    async def _version(self, path: str) -> str:
        listed = orjson.loads(await self.text(f"{path}{'&' if '?' in path else '?'}limit=1"))
        return str(listed["metadata"]["resourceVersion"])

    async def _follow(self, path: str, version: str, see: Callable[[Object], None]) -> None:
        """Goes on where it was when the API server ends a watch, as it does to a reader that it finds slow."""
        for _ in range(_MOST_WATCHES):
            with contextlib.suppress(aiohttp.ClientPayloadError):
                async for event in self._events(path, version):
                    if event["type"] == "ERROR":
                        raise MeasuringError(f"watch of {path}: {event['object']}")
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] in {"ADDED", "MODIFIED"}:
                        see(event["object"])
            print(f"the API server ended the watch of {path}; going on", file=sys.stderr)
        raise MeasuringError(f"the watch of {path} has ended {_MOST_WATCHES} times")

    async def _events(self, path: str, version: str) -> AsyncIterator[Any]:
        query = f"watch=1&timeoutSeconds={_WATCH_SECONDS}&resourceVersion={version}"
        url = f"{self._server}{path}{'&' if '?' in path else '?'}{query}"
        async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=None)) as response:
            response.raise_for_status()
            async for line in response.content:
                yield orjson.loads(line)


@asynccontextmanager
async def connected(cluster: Cluster) -> AsyncIterator[ApiClient]:
    """A client of a running cluster."""
    pki = cluster.folder.certificates
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=context)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(
        connector=connector, read_bufsize=_LONGEST_LINE, timeout=timeout
    ) as session:
        yield ApiClient(session, cluster.plan.server)


async def until(event: asyncio.Event, tasks: Iterable[asyncio.Task[None]]) -> None:
    """Wait for the event; if one of the tasks ends before, raise what ended it."""
    waiter = asyncio.create_task(event.wait())
    try:
        done, _ = await asyncio.wait({waiter, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {waiter}:
            task.result()
    finally:
        await cancelled([waiter])


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they are gone."""
    gone = list(tasks)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
