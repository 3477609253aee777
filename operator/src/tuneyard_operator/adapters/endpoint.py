# SPDX-License-Identifier: Apache-2.0
"""Asks an OpenAI-compatible server what it lists and for one token, as NIM and vLLM answer it."""

from dataclasses import dataclass

import aiohttp
import orjson

from tuneyard_operator.adapters.shared import Shared
from tuneyard_operator.domain.observed import EndpointAnswer

_SHARED_SECONDS = 1.5
"""How long a list of models counts: all jobs that wait for one endpoint ask it once."""
_LIST_TIMEOUT = aiohttp.ClientTimeout(total=5)
_COMPLETION_TIMEOUT = aiohttp.ClientTimeout(total=30)
_OK = 200
_EXCERPT = 200


@dataclass(frozen=True, slots=True)
class _Listing:
    models: tuple[str, ...] | None
    problem: str


class OpenAIEndpoint:
    """The Endpoint port over HTTP."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._listings = Shared(self._list, _SHARED_SECONDS)

    async def ask(self, endpoint: str, adapter: str) -> EndpointAnswer:
        """See `ports.Endpoint`."""
        endpoint = endpoint.rstrip("/")
        listing = await self._listings.get(endpoint)
        if listing.models is None or adapter not in listing.models:
            return EndpointAnswer(listing.models, problem=listing.problem)
        problem = await self._complete(endpoint, adapter)
        return EndpointAnswer(listing.models, completed=not problem, problem=problem)

    async def _list(self, endpoint: str) -> _Listing:
        models, problem = None, ""
        try:
            async with self._session.get(f"{endpoint}/v1/models", timeout=_LIST_TIMEOUT) as response:
                raw = await response.read()
                if response.status == _OK:
                    models = tuple(str(model["id"]) for model in orjson.loads(raw)["data"])
                else:
                    problem = _said(response.status, raw)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            problem = _named(error)
        return _Listing(models, problem)

    async def _complete(self, endpoint: str, adapter: str) -> str:
        """What is wrong with one token from the adapter, or nothing."""
        body = {"model": adapter, "prompt": "Hello", "max_tokens": 1}
        try:
            async with self._session.post(
                f"{endpoint}/v1/completions", json=body, timeout=_COMPLETION_TIMEOUT
            ) as response:
                raw = await response.read()
                if response.status != _OK:
                    return f"a completion {_said(response.status, raw)}"
                return "" if orjson.loads(raw)["choices"] else "a completion has no choices"
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            return f"a completion failed: {_named(error)}"


def _said(status: int, raw: bytes) -> str:
    return f"answered {status}: {raw[:_EXCERPT].decode(errors='replace')}"


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
