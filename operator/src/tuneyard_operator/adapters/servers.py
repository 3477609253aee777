# SPDX-License-Identifier: Apache-2.0
"""Asks the servers that people run for one token from an adapter: vLLM, NIM, and any other OpenAI-compatible one.

A list of models proves nothing by itself: vLLM's filesystem resolver lists an adapter only after a request has named it
(0.32.0). So the completion is asked for first, and 404 means "not yet".
"""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
from tuneyard_api.registry import STATUS_PORT, hex_of
from tuneyard_api.serving import Destination

from tuneyard_operator.adapters.replicas import Replicas
from tuneyard_operator.adapters.shared import Shared
from tuneyard_operator.domain.observed import AskedAdapter, ReplicaAnswer
from tuneyard_operator.ports import ClusterError

_SHARED_SECONDS = 1.5
"""How long a list of models counts: all jobs that look for one base model ask for it once."""
_LIST_TIMEOUT = aiohttp.ClientTimeout(total=5)
_COMPLETION_TIMEOUT = aiohttp.ClientTimeout(total=30)
_OK, _NOT_FOUND = 200, 404
_EXCERPT = 200
_ERRORS = (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError)


class HttpModelServers:
    """The ModelServers port over HTTP."""

    def __init__(self, session: aiohttp.ClientSession, replicas: Replicas) -> None:
        self._session, self._replicas = session, replicas
        self._listings = Shared(self._names, _SHARED_SECONDS)

    async def listed(self, destination: Destination) -> tuple[str, ...] | None:
        """See `ports.ModelServers`."""
        return await self._listings.get(destination.endpoint)

    async def ask(self, destination: Destination, adapter: AskedAdapter) -> tuple[ReplicaAnswer, ...]:
        """See `ports.ModelServers`."""
        endpoint = destination.endpoint.rstrip("/")
        try:
            addresses = await self._replicas.of(endpoint)
        except ClusterError as error:
            problem = f"its replicas are not known: {error}"
            return (ReplicaAnswer(urlsplit(endpoint).netloc, is_reached=False, problem=problem),)
        asked = (self._ask_one(address, destination, adapter) for address in addresses)
        return tuple(await asyncio.gather(*asked))

    async def _ask_one(self, address: str, destination: Destination, adapter: AskedAdapter) -> ReplicaAnswer:
        name = urlsplit(address).netloc
        body = {"model": adapter.name, "prompt": "Hello", "max_tokens": 1}
        try:
            status, raw = await self._post(f"{address}/v1/completions", body)
            if status == _NOT_FOUND:
                return ReplicaAnswer(name, problem=f"does not have {adapter.name} yet")
            if status != _OK:
                return ReplicaAnswer(name, problem=f"a completion {_said(status, raw)}")
            if not orjson.loads(raw)["choices"]:
                return ReplicaAnswer(name, problem="a completion has no choices")
            other = await self._other_version(address, adapter) if destination.server == "vllm" else ""
        except _ERRORS as error:
            return ReplicaAnswer(name, is_reached=False, problem=_named(error))
        if other and (refusal := await self._refusal_of(address, adapter)):
            return ReplicaAnswer(name, problem=f"has refused this version: {refusal}", has_refused=True)
        return ReplicaAnswer(name, completed=not other, problem=other)

    async def _other_version(self, address: str, adapter: AskedAdapter) -> str:
        """What is wrong with the version that vLLM answers with, or nothing.

        vLLM lists the folder that an adapter was loaded from as `root`; a folder of the registry's layout names the
        digest. A loaded name is not looked at again (0.32.0), so for a name that may have stood for another version the
        folder of the name proves nothing, and this version is loaded in its place. A new name is not: with `load_inplace`
        vLLM reads an adapter from disk again at each step of its engine.
        """
        root = await self._root_of(address, adapter.name)
        if root is None or adapter.digest in root:
            return ""
        if "/.store/" in root:
            return f"answers with another version ({root})"
        if not adapter.replaces:
            return ""
        path = f"{root.rpartition('/')[0]}/.store/{adapter.name}/{adapter.digest}"
        load = {"lora_name": adapter.name, "lora_path": path, "load_inplace": True}
        status, raw = await self._post(f"{address}/v1/load_lora_adapter", load)
        return "" if status == _OK else f"was asked to load {path} and {_said(status, raw)}"

    async def _refusal_of(self, address: str, adapter: AskedAdapter) -> str:
        """Why adapter-sync beside the server does not let it have this version; empty where there is none, or it may."""
        host = urlsplit(address)._replace(netloc=_at_port(address, STATUS_PORT), path="/adapters").geturl()
        try:
            async with self._session.get(host, timeout=_LIST_TIMEOUT) as response:
                told = orjson.loads(await response.read())["adapters"]
            mine = (
                each
                for each in told
                if each["name"] == adapter.name and hex_of(each["digest"]) == adapter.digest
            )
            return str(next((each.get("refused") or "" for each in mine), ""))
        except _ERRORS:
            return ""

    async def _root_of(self, address: str, name: str) -> str | None:
        models = await self._models(address)
        return next((str(model.get("root") or "") for model in models if model["id"] == name), None)

    async def _names(self, endpoint: str) -> tuple[str, ...] | None:
        try:
            return tuple(str(model["id"]) for model in await self._models(endpoint.rstrip("/")))
        except _ERRORS:
            return None

    async def _models(self, address: str) -> list[dict[str, Any]]:
        async with self._session.get(f"{address}/v1/models", timeout=_LIST_TIMEOUT) as response:
            raw = await response.read()
            if response.status != _OK:
                raise ValueError(_said(response.status, raw))
            return list(orjson.loads(raw)["data"])

    async def _post(self, url: str, body: dict[str, Any]) -> tuple[int, bytes]:
        async with self._session.post(url, json=body, timeout=_COMPLETION_TIMEOUT) as response:
            return response.status, await response.read()


def _said(status: int, raw: bytes) -> str:
    return f"answered {status}: {raw[:_EXCERPT].decode(errors='replace')}"


def _at_port(address: str, port: int) -> str:
    """The host of an address with another port."""
    host = urlsplit(address).hostname or ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
