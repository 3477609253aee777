# SPDX-License-Identifier: Apache-2.0
"""kopf as the source of events: four watches that feed the store.

Only `on.event` is used: `on.create`, `on.update` and timers would write annotations and progress of kopf's own into
every object, one request and one echo each. See docs/adr/0002-operator-core.md for what was measured.
"""

import itertools
from collections.abc import Callable
from typing import Any

import kopf
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
"""Between tries of a list or watch that fails. kopf's own are fewer and ever longer, and then it ends the process."""
_IDLE_SECONDS = 1.0
"""kopf keeps a task and a queue for every object that has had an event; under a burst they are most of the memory."""


def build_registry(store: Store, log_in: Callable[[], kopf.ConnectionInfo]) -> kopf.OperatorRegistry:
    """The handlers of the operator: one for logging in, one for each watched kind."""
    registry = kopf.OperatorRegistry()

    def login(**_: Any) -> kopf.ConnectionInfo:
        return log_in()

    kopf.on.login(registry=registry)(login)
    for kind, (group, version, plural) in _SOURCES.items():
        kopf.on.event(group, version, plural, id=f"see-{plural}", registry=registry)(_handler(store, kind))
    return registry


def build_settings(watch_seconds: int) -> kopf.OperatorSettings:
    """Kopf's settings; `worker_limit` must stay unset: a worker holds its slot until its object falls silent."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
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
