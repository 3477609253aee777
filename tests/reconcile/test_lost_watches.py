# SPDX-License-Identifier: Apache-2.0
"""Watches that kopf gives up, as when a kind goes: said in one line, and begun anew once the kind is there."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import kopf
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.world.world import World
from tuneyard_operator import main as entry
from tuneyard_operator.handlers import watching
from tuneyard_operator.handlers.watching import WatchLostError, build_settings, is_no_lost_watch, watch
from tuneyard_operator.reconcile.leadership import Leadership
from tuneyard_operator.settings import Settings

PLURALS = {
    "/api/v1": ["pods", "namespaces"],
    "/apis/batch/v1": ["jobs"],
    "/apis/tuneyard.io/v1alpha1": ["finetunejobs", "finetuneruntimes"],
}
WATCHED = {"pods", "jobs", "finetunejobs", "finetuneruntimes"}


class ApiServer:
    """What kopf asks of an API server without objects; a kind can be gone, or served and not listed yet."""

    def __init__(self, *, unlisted: str = "") -> None:
        self.unlisted, self.gone = unlisted, ""
        self.watched: set[str] = set()
        self.all_watched = asyncio.Event()
        self.ends = asyncio.Event()
        """All watches end, as when a kind is deleted."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path, plural = request.path, request.path.rsplit("/", 1)[1]
        if path == "/api":
            return web.json_response({"versions": ["v1"]})
        if path == "/apis":
            return web.json_response({"groups": [group(path) for path in PLURALS if path != "/api/v1"]})
        if path in PLURALS:
            listed = [kind(plural) for plural in PLURALS[path] if plural != self.unlisted]
            return web.json_response({"resources": listed})
        if plural == self.gone:
            return web.Response(text="404 page not found", status=404)
        if "watch" not in request.query:
            return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})
        stream = web.StreamResponse()
        await stream.prepare(request)
        self.watched.add(plural)
        if self.watched >= WATCHED:
            self.all_watched.set()
        await self.ends.wait()
        return stream

    async def remove(self, plural: str) -> float:
        """A kind goes as soon as all are watched; returns the moment."""
        await self.all_watched.wait()
        self.gone = plural
        self.ends.set()
        return time.monotonic()


def group(path: str) -> dict[str, Any]:
    _, _, name, version = path.split("/")
    return {"name": name, "versions": [{"version": version}], "preferredVersion": {"version": version}}


def kind(plural: str) -> dict[str, Any]:
    verbs = ["list", "watch"]
    return {"name": plural, "kind": plural, "singularName": "", "namespaced": True, "verbs": verbs}


def watched(build: Callable[[], ApiServer], removed: str = "") -> tuple[list[str], float]:
    """What is called back, and then said, when the watches are lost, as they must be: when a kind is removed.

    With the seconds since it was removed.
    """
    told: list[str] = []

    async def run() -> float:
        server, app = build(), web.Application()
        app.router.add_route("*", "/{path:.*}", server.answer)
        async with TestServer(app) as address:
            url = str(address.make_url("")).rstrip("/")
            removal = asyncio.ensure_future(server.remove(removed)) if removed else None
            store, settings = World().operator_store, build_settings(300)
            log_in = lambda: kopf.ConnectionInfo(server=url)  # noqa: E731
            try:
                with pytest.raises(WatchLostError) as caught:
                    await asyncio.wait_for(watch(store, log_in, lambda: told.append("stops"), settings), 60)
                told.append(str(caught.value))
                return time.monotonic() - await asyncio.wait_for(removal, 10) if removal else 0.0
            finally:
                server.ends.set()

    seconds = asyncio.run(run())
    return told, seconds


def test_a_kind_that_goes_is_one_line_at_once_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(is_no_lost_watch)
    caplog.set_level(logging.WARNING)
    told, seconds = watched(ApiServer, removed="finetunejobs")
    assert told == ["stops", "a watch has ended: 404 page not found"]
    assert seconds < 4, "kopf's own end waits 5 s for the other watches"
    assert caplog.messages == []


def test_a_kind_that_is_served_and_not_listed_yet_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_RETRY_SECONDS", 0.01)
    told, _ = watched(lambda: ApiServer(unlisted="finetuneruntimes"))
    assert told[-1] == "the API server does not list finetuneruntimes among its kinds"


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What an operator on an empty world does; the first of its watches is lost."""
    done: list[str] = []

    async def see(*_: Any) -> None:
        done.append("looks")

    async def watch_twice(store: Any, log_in: Any, on_stop: Callable[[], None], settings: Any) -> None:
        done.append("watches")
        await asyncio.sleep(0.01)
        on_stop()
        await asyncio.sleep(0.01)
        if done.count("watches") == 1:
            raise WatchLostError("a watch has ended: 404 page not found")

    monkeypatch.setattr(entry, "resync", see)
    monkeypatch.setattr(entry, "watch", watch_twice)
    return done


def test_after_lost_watches_the_cluster_is_looked_at_and_watched_again(
    rounds: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> list[bool]:
        world, ready = World(), asyncio.Event()
        lease = Leadership(world.cluster, world, namespace="default", identity="x", seconds=15)
        outcomes = []
        for _ in range(2):
            outcomes.append(await entry._work_while_watched(Settings(), world.reconciler, lease, ready))
            assert not ready.is_set()
        return outcomes

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(run()) == [False, True]
    assert [each for each in rounds if each == "watches"] == ["watches"] * 2
    assert rounds.index("looks") < rounds.index("watches")
    assert "a watch has ended: 404 page not found; the watches are restarted" in caplog.messages


def test_other_tracebacks_stay() -> None:
    def record(error: Exception | None) -> logging.LogRecord:
        trace = (type(error), error, None) if error else None
        return logging.LogRecord("kopf", logging.ERROR, "x", 1, "has failed", None, trace)

    assert is_no_lost_watch(record(None))
    assert is_no_lost_watch(record(ValueError("a bug")))
