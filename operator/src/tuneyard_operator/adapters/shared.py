# SPDX-License-Identifier: Apache-2.0
"""Shares one answer among all callers that ask the same within some seconds, so a burst of jobs sends one request."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Shared(Generic[Answer]):
    """Answers by name, fetched at most once in `seconds`; callers that ask during a fetch wait for its result."""

    def __init__(self, fetch: Callable[[str], Awaitable[Answer]], seconds: float) -> None:
        self._fetch, self._seconds = fetch, seconds
        self._held: dict[str, tuple[float, Answer]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, name: str) -> Answer:
        """The answer; what `fetch` raises is raised and not kept."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            held = self._held.get(name)
            if held is not None and held[0] > time.monotonic():
                return held[1]
            answer = await self._fetch(name)
            self._held[name] = (time.monotonic() + self._seconds, answer)
            return answer
