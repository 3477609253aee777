# SPDX-License-Identifier: Apache-2.0
"""kopf as the source of events: four watches that feed the store. `main` restarts them when they are lost.

Only `on.event` is used: `on.create`, `on.update` and timers would write annotations and progress of kopf's own into
every object, one request and one echo each. See docs/adr/0002-operator-core.md for what was measured.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

import kopf

# kopf says that users can't catch these errors, but it ends with them when a kind that it watches disappears.
from kopf._cogs.clients.errors import APIError
from kopf._cogs.clients.watching import WatchingError
from kopf._cogs.structs.references import Insights
from tuneyard_api import names

from tuneyard_operator.handlers.stateless import NoEssence, NoProgress
from tuneyard_operator.ports import Watched
from tuneyard_operator.reconcile.store import Store

_SOURCES: dict[Watched, tuple[str, str, str]] = {
    "FineTuneJob": (names.GROUP, names.VERSION, names.JOB_PLURAL),
    "FineTuneRuntime": (names.GROUP, names.VERSION, names.RUNTIME_PLURAL),
    "Job": ("batch", "v1", "jobs"),
    "Pod": ("", "v1", "pods"),
}
_CHUNK = 200
_CLIENT_GRACE = 10
_RETRY_SECONDS = 1.0
"""Seconds between tries of a list or watch that fails because of network, rights or load; kopf retries nothing else."""
_IDLE_SECONDS = 1.0
"""How long kopf keeps a task and a queue for an object after an event; in a burst they take most of the memory."""
_NOT_RETRIED = (APIError, WatchingError)


class WatchLostError(Exception):
    """The watches ended unexpectedly and must be restarted."""


async def watch(
    store: Store,
    log_in: Callable[[], kopf.ConnectionInfo],
    on_stop: Callable[[], None],
    settings: kopf.OperatorSettings,
) -> None:
    """Feed the store until SIGTERM or SIGINT, which kopf handles while it runs.

    `on_stop` is called as soon as the watches begin to end: kopf gives all tasks some seconds before it returns.

    Raises:
        WatchLostError: when a kind disappears, or the API server keeps refusing a list or a watch.
    """
    insights = Insights()
    kinds = asyncio.ensure_future(_find_all_kinds(insights))
    watches = asyncio.ensure_future(
        kopf.operator(
            registry=build_registry(store, log_in, on_stop),
            settings=settings,
            insights=insights,
            clusterwide=True,
            standalone=True,
            # kopf would derive one from the user's name, and a pod's numeric user has none. The type is not public.
            identity=names.FIELD_MANAGER,  # type: ignore[arg-type]
        )
    )
    try:
        await asyncio.wait({kinds, watches}, return_when=asyncio.FIRST_COMPLETED)
        if kinds.done():
            kinds.result()
        await watches
    except _NOT_RETRIED as error:
        said = error.args[0] if error.args else repr(error)
        raise WatchLostError(f"a watch has ended: {said}") from error
    finally:
        for task in (kinds, watches):
            task.cancel()
        await asyncio.wait({kinds, watches})


async def _find_all_kinds(insights: Insights) -> None:
    """Wait until all kinds are listed: kopf looks for kinds once, and would never watch one that is listed later."""
    await insights.ready_resources.wait()
    found = {(resource.group, resource.version, resource.plural) for resource in insights.watched_resources}
    missing = [
        plural for group, version, plural in _SOURCES.values() if (group, version, plural) not in found
    ]
    if missing:
        await asyncio.sleep(_RETRY_SECONDS)
        raise WatchLostError(f"the API server does not list {' and '.join(missing)} among its kinds")


async def _end_watchers() -> None:
    """Cancel kopf's watcher tasks: when one of them fails, kopf leaves the others running without credentials."""
    while watchers := {task for task in asyncio.all_tasks() if task.get_name().startswith("watcher for ")}:
        for task in watchers:
            task.cancel()  # repeated: kopf swallows one that comes during a pause
        await asyncio.wait(watchers, timeout=_RETRY_SECONDS)


def is_no_lost_watch(record: logging.LogRecord) -> bool:
    """Whether to keep a log record; kopf's traceback of a lost watch is dropped, as WatchLostError tells it."""
    return record.exc_info is None or not isinstance(record.exc_info[1], _NOT_RETRIED)


def build_registry(
    store: Store, log_in: Callable[[], kopf.ConnectionInfo], on_stop: Callable[[], None]
) -> kopf.OperatorRegistry:
    """The handlers of the operator: for logging in, for the end, and one for each watched kind."""
    registry = kopf.OperatorRegistry()

    def login(**_: Any) -> kopf.ConnectionInfo:
        return log_in()

    async def cleanup(**_: Any) -> None:
        on_stop()
        await _end_watchers()

    kopf.on.login(registry=registry)(login)
    kopf.on.cleanup(registry=registry)(cleanup)
    for kind, (group, version, plural) in _SOURCES.items():
        kopf.on.event(group, version, plural, id=f"see-{plural}", registry=registry)(_handler(store, kind))
    return registry


def build_settings(watch_seconds: int) -> kopf.OperatorSettings:
    """Kopf's settings; `worker_limit` must stay unset: a worker holds its slot until its object falls silent."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    # It counts from the end of the watches. That is not the end of the process when the watches are restarted.
    settings.process.ultimate_exiting_timeout = None
    settings.persistence.diffbase_storage = NoEssence()
    settings.persistence.progress_storage = NoProgress()
    settings.queueing.idle_timeout = _IDLE_SECONDS
    settings.watching.server_timeout = watch_seconds
    settings.watching.client_timeout = watch_seconds + _CLIENT_GRACE
    settings.watching.connect_timeout = _CLIENT_GRACE
    settings.watching.chunk_size = _CHUNK
    settings.networking.error_backoffs = itertools.repeat(_RETRY_SECONDS)
    for kind in ("Job", "Pod"):
        settings.watching.label_selectors[_SOURCES[kind]] = names.LABEL_JOB
    return settings


def _handler(store: Store, kind: Watched) -> Callable[..., Any]:
    async def see(event: Any, **_: Any) -> None:
        if event["type"] == "DELETED":
            store.drop(kind, event["object"])
        else:
            store.put(kind, event["object"])

    return see
