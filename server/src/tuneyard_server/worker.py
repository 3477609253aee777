# SPDX-License-Identifier: Apache-2.0
"""One thread that owns the model: requests and adapter changes run in it one after the other, in order of arrival.

A model with switchable adapters has state, and two CPU generations at once are slower than one after the other.
The queue is bounded: a request that finds it full is refused at once instead of waiting for too long.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard_server.catalog import Catalog
from tuneyard_server.errors import NotReadyError, QueueFullError
from tuneyard_server.requests import GenerationRequest
from tuneyard_server.settings import Settings

if TYPE_CHECKING:  # Importing PyTorch takes seconds, and the server listens before that.
    from tuneyard_server.engine import Answer, Engine

LOG = logging.getLogger("tuneyard.server")


@dataclass(frozen=True)
class Started:
    """The request was accepted and its first prompt begins."""


@dataclass(frozen=True)
class Text:
    """A piece of the answer to prompt `index`."""

    index: int
    text: str


@dataclass(frozen=True)
class Finished:
    """The answer to prompt `index` is complete."""

    index: int
    answer: "Answer"


Event = Started | Text | Finished
Emit = Callable[[Event], None]


class Worker:
    """The model's thread and its queue."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._engine: Engine | None = None
        self._requests = 0
        self._closing = threading.Event()
        self.catalog: Catalog | None = None
        """The served models; None until the base model is loaded."""
        self.loaded_at = 0

    async def load(self) -> None:
        """Loads the base model; ready afterwards."""
        start = time.monotonic()
        loop = asyncio.get_running_loop()
        self._engine = await loop.run_in_executor(self._thread, self._load_engine)
        self.catalog, self.loaded_at = Catalog(self._settings, self._engine), int(time.time())
        LOG.info(
            "ready after %.1f s: %s, adapters in %s",
            time.monotonic() - start,
            self._settings.served_name,
            self._settings.adapters or "no folder",
        )

    async def change(self, change: Callable[[Catalog], None]) -> None:
        """Make one change of the listed adapters in the model's thread.

        Raises:
            RequestError: it can't be made.
        """
        catalog = self._ready_catalog()
        await asyncio.get_running_loop().run_in_executor(self._thread, change, catalog)

    async def answer(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The events of one request.

        Raises:
            RequestError: before Started.
        """
        self._ready_catalog()
        if self._requests >= self._settings.queue:
            raise QueueFullError(
                f"{self._requests} requests are waiting, {self._settings.queue} may; try again later"
            )
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        is_cancelled = threading.Event()

        def emit(event: Event | None) -> None:
            if not loop.is_closed():  # The end of a request that was still running when the server stopped.
                loop.call_soon_threadsafe(events.put_nowait, event)

        def work() -> None:
            try:
                self._generate(request, emit, is_cancelled)
            finally:
                emit(None)

        self._requests += 1
        future = loop.run_in_executor(self._thread, work)
        future.add_done_callback(self._forget_request)
        try:
            while (event := await events.get()) is not None:
                yield event
            await future
        finally:
            is_cancelled.set()

    def _forget_request(self, future: asyncio.Future[None]) -> None:
        self._requests -= 1
        if not future.cancelled():
            future.exception()  # The reader may be gone; a reader that is left has seen it.

    async def close(self) -> None:
        """Ends what is running at its next token and waits for the thread."""
        self._closing.set()
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    def _ready_catalog(self) -> Catalog:
        if self.catalog is None or self._closing.is_set():
            raise NotReadyError(
                "the model is being loaded" if self.catalog is None else "the server is stopping"
            )
        return self.catalog

    def _load_engine(self) -> "Engine":
        # On shared cores, threads that wait by spinning take time from the threads that they wait for.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from tuneyard_server.engine import Engine  # noqa: PLC0415  the server listens before PyTorch is imported

        return Engine(Path(self._settings.model), self._settings.threads)

    def _generate(self, request: GenerationRequest, emit: Emit, is_cancelled: threading.Event) -> None:
        engine, catalog = self._engine, self.catalog
        if engine is None or catalog is None or is_cancelled.is_set():
            return
        handle = catalog.find_handle(request.model or self._settings.served_name)
        prompts = (
            [engine.encode_chat(request.messages)]
            if request.is_chat
            else [engine.encode_prompt(prompt) for prompt in request.prompts]
        )
        for ids in prompts:
            engine.check_length(ids, request.sampling)
        emit(Started())
        for index, ids in enumerate(prompts):
            answer = engine.generate(
                handle,
                ids,
                request.sampling,
                on_text=(lambda text, index=index: emit(Text(index, text))) if request.is_stream else None,
                is_cancelled=lambda: is_cancelled.is_set() or self._closing.is_set(),
            )
            if is_cancelled.is_set():
                return
            emit(Finished(index, answer))
