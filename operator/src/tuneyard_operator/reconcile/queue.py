# SPDX-License-Identifier: Apache-2.0
"""The keyed queue: one worker at a time handles a key, no key is queued twice, and a key may return after a delay.

Jobs that have begun go before those that have not: under a burst it is better to finish than to start.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple


class Key(NamedTuple):
    """A FineTuneJob."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


FIRST_DELAY, LAST_DELAY = 1.0, 60.0
"""Seconds between tries of a key that fails, doubled each time."""


class KeyedQueue:
    """Keys that wait for a pass. Only for one event loop."""

    def __init__(self, has_begun: Callable[[Key], bool]) -> None:
        self._has_begun = has_begun
        self._begun: deque[Key] = deque()
        self._fresh: deque[Key] = deque()
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """Keys that are due and not yet taken."""
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is due and nothing is being worked on; timers may still be set."""
        return not self._waiting and not self._working

    def add(self, key: Key) -> None:
        """Make a pass due now and cancel the key's timer, since the pass will set its own.

        After a failure the delay is kept, however many events arrive.
        """
        if key in self._failures and key in self._timers:
            return
        self._cancel(key)
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            (self._begun if self._has_begun(key) else self._fresh).append(key)
            self._wake.set()

    def add_later(self, key: Key, seconds: float) -> None:
        """Make a pass due after a delay, unless one is due before."""
        self._cancel(key)
        if key not in self._waiting and key not in self._again:
            self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._ring, key)

    async def take(self) -> Key:
        """The next key; `done` must follow."""
        while not self._waiting:
            self._wake.clear()
            await self._wake.wait()
        key = (self._begun or self._fresh).popleft()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: Key, *, requeue_after: float | None = None) -> None:
        """End the pass; events that arrived meanwhile make the key due again."""
        self._failures.pop(key, None)
        self._release(key, requeue_after)

    def failed(self, key: Key, at_least: float = 0.0) -> float:
        """End a failed pass: the key returns after a growing delay, whatever happens before; returns its seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = max(at_least, min(LAST_DELAY, FIRST_DELAY * 2.0 ** (failures - 1)))
        self._again.discard(key)
        self._release(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """Forget the key of a FineTuneJob that is gone."""
        self._cancel(key)
        self._failures.pop(key, None)

    def _release(self, key: Key, requeue_after: float | None) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        elif requeue_after is not None:
            self.add_later(key, requeue_after)

    def _ring(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
