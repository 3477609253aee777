# SPDX-License-Identifier: Apache-2.0
"""One thread that owns the model: requests and adapter changes run in it one after the other, in order of arrival.

A model with switchable adapters has state, and two CPU generations at once are slower than one after the other.
The queue is bounded: who comes too late learns it at once instead of waiting for an answer that nobody reads.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard_server.catalog import Catalog
from tuneyard_server.errors import NotReadyError, QueueFullError, UnknownModelError
from tuneyard_server.registry import Registry
from tuneyard_server.requests import GenerationRequest
from tuneyard_server.settings import Settings

if TYPE_CHECKING:  # PyTorch takes seconds to import: the server listens before that.
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
    """The answer to prompt `index` is whole."""

    index: int
    answer: "Answer"


Event = Started | Text | Finished
Emit = Callable[[Event], None]


class Worker:
    """The model's thread and everything that is asked of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry = Registry(settings.adapters) if settings.adapters else None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._engine: Engine | None = None
        self._requests = 0
        self._closing = threading.Event()
        self.catalog: Catalog | None = None
        """None until model and first adapters are loaded."""
        self.registry_problem: str | None = None
        self.loaded_at = 0

    async def load(self) -> None:
        """Loads the base model and the adapters that are there already; ready afterwards."""
        start = time.monotonic()
        loop = asyncio.get_running_loop()
        engine = await loop.run_in_executor(self._thread, self._load_engine)
        self._engine = engine
        catalog = Catalog(self._settings.served_name, engine)
        await self._refresh_into(catalog)
        self.catalog, self.loaded_at = catalog, int(time.time())
        LOG.info(
            "ready after %.1f s: %s, looking for adapters in %s every %g s",
            time.monotonic() - start,
            ", ".join(catalog.names),
            self._settings.adapters or "no folder",
            self._settings.refresh_seconds,
        )

    async def refresh(self) -> None:
        """One look at the registry."""
        if self.catalog is not None:
            await self._refresh_into(self.catalog)

    async def _refresh_into(self, catalog: Catalog) -> None:
        if self._registry is None:
            return
        try:
            scan = await asyncio.to_thread(self._registry.scan)
            await asyncio.get_running_loop().run_in_executor(self._thread, catalog.update, scan)
        except OSError as error:
            # What is loaded stays: a volume that is away for a moment is no reason to forget its adapters.
            problem = f"{self._registry.root}: {error.strerror or error}"
            if problem != self.registry_problem:
                LOG.warning("the registry can't be read: %s", problem)
            self.registry_problem = problem
        except Exception:
            LOG.exception("looking at the registry failed; the next look is in its turn")
            self.registry_problem = "looking at it failed; see the server's log"
        else:
            self.registry_problem = None

    async def answer(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The events of one request.

        Raises:
            RequestError: before Started; UnknownModelError also when the adapter went while the request waited.
        """
        if self.catalog is None or self._closing.is_set():
            raise NotReadyError(
                "the model is being loaded" if self.catalog is None else "the server is going down"
            )
        self._find_handle(request.model)
        if self._requests >= self._settings.queue:
            raise QueueFullError(
                f"{self._requests} requests are waiting, {self._settings.queue} may; try again later"
            )
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        is_cancelled = threading.Event()

        def emit(event: Event | None) -> None:
            if not loop.is_closed():  # The last words of a request that outlived the server.
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
            future.exception()  # Its reader may have gone; whoever is left has seen it.

    async def close(self) -> None:
        """Ends what is running at its next token and waits for the thread."""
        self._closing.set()
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    def _find_handle(self, model: str) -> str | None:
        catalog = self.catalog
        if catalog is None:
            raise NotReadyError("the model is being loaded")
        served = catalog.served.get(model)
        if served is None and model != catalog.base:
            raise UnknownModelError(f"no model {model!r} is served; there are {', '.join(catalog.names)}")
        return served.handle if served else None

    def _load_engine(self) -> "Engine":
        from tuneyard_server.engine import Engine  # noqa: PLC0415  the server listens before PyTorch is imported

        return Engine(Path(self._settings.model), self._settings.threads)

    def _generate(self, request: GenerationRequest, emit: Emit, is_cancelled: threading.Event) -> None:
        engine = self._engine
        if engine is None or is_cancelled.is_set():
            return
        handle = self._find_handle(request.model)
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
