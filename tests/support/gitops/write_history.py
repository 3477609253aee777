# SPDX-License-Identifier: Apache-2.0
"""Everything that was written to the cluster, in the order in which its one etcd took it.

All kinds share one sequence of resource versions, so whether something was applied before something else was
ready is a comparison of two numbers, not of clocks.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Self

from support.gitops.api_watch import ApiWatch
from support.gitops.kinds import APPLICATION, KINDS, Kind, is_ready

Json = dict[str, Any]
TRACKING = "argocd.argoproj.io/tracking-id"


@dataclass(frozen=True)
class Write:
    """One object as it was at one resource version."""

    version: int
    kind: str
    name: str
    """`<namespace>/<name>`."""
    application: str
    """The Application that it belongs to; of an Application, its own name."""
    content: str
    """A digest of all but status and metadata."""
    ready: bool
    gone: bool

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.name


def _name(metadata: Json) -> str:
    return f"{metadata.get('namespace', '')}/{metadata['name']}"


def _version(metadata: Json) -> int:
    return int(metadata["resourceVersion"])


def _content(entry: Json) -> str:
    kept = {key: value for key, value in entry.items() if key not in ("metadata", "status", "operation")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


class History:
    """Watches every kind that rendered trees have; listeners hear each object as it changes."""

    def __init__(self, api: ApiWatch) -> None:
        self.api = api
        self.writes: list[Write] = []
        self.listeners: list[Callable[[Kind, Json], None]] = []
        self._lock, self._over = threading.Lock(), threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, args=(kind,), daemon=True) for kind in (APPLICATION, *KINDS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def join(self) -> None:
        """Waits for the watches, which end with the API server."""
        for thread in self._threads:
            thread.join()

    def _follow(self, kind: Kind) -> None:
        while not self._over.is_set():
            try:
                if listed := self.api.get(kind.everywhere):
                    for entry in listed["items"]:
                        self._note(kind, entry | {"kind": kind.kind}, gone=False)
                    self._watch(kind, listed["metadata"]["resourceVersion"])
            except (OSError, HTTPException):
                pass
            self._over.wait(1.0)  # its CRD may not be there yet

    def _watch(self, kind: Kind, version: str) -> None:
        """Watch until the server can't resume from a version; a new list would miss deletions."""
        while not self._over.is_set():
            for event in self.api.watch(kind.everywhere, version):
                if event["type"] == "ERROR":
                    return
                version = event["object"]["metadata"]["resourceVersion"]
                self._note(kind, event["object"], gone=event["type"] == "DELETED")

    def _note(self, kind: Kind, entry: Json, *, gone: bool) -> None:
        metadata = entry["metadata"]
        tracking = metadata.get("annotations", {}).get(TRACKING, "")
        is_application = kind is APPLICATION
        write = Write(
            version=_version(metadata),
            kind=kind.kind,
            name=_name(metadata),
            application=metadata["name"] if is_application else tracking.split(":")[0],
            content=_content(entry),
            ready=not is_application and is_ready(entry, kind.has_status),
            gone=gone,
        )
        with self._lock:
            self.writes.append(write)
        if not gone:
            for listener in self.listeners:
                listener(kind, entry)

    def catch_up(self, seconds: float = 120) -> None:
        """Return when the watches have told what is there by now, and which Applications have gone.

        A verdict on less would be one by chance.
        """
        end = time.monotonic() + seconds
        for kind in (APPLICATION, *KINDS):
            listed = self.api.get(kind.everywhere)
            while listed and not self._knows(kind, listed):
                assert time.monotonic() < end, f"the watch of {kind.kind} lags behind"
                time.sleep(0.05)

    def _knows(self, kind: Kind, listed: Json) -> bool:
        """Whether each listed object was seen as it is there or later, and each other Application was seen to go."""
        last = {write.name: write for write in self._all() if write.kind == kind.kind}
        there = {_name(entry["metadata"]): _version(entry["metadata"]) for entry in listed["items"]}
        # Other kinds may have gone with their CRD, and their watch with them.
        left = [write for name, write in last.items() if kind is APPLICATION and name not in there]
        return all(name in last and last[name].version >= version for name, version in there.items()) and all(
            write.gone or write.version > _version(listed["metadata"]) for write in left
        )

    def now(self) -> int:
        """The version of the newest write of all."""
        return _version(self.api.get("/api/v1/namespaces?limit=1")["metadata"])

    def since(self, version: int) -> list[Write]:
        """The writes after a version, in order."""
        with self._lock:
            return sorted({w for w in self.writes if w.version > version}, key=lambda w: (w.version, w.gone))

    def _all(self) -> list[Write]:
        return self.since(0)

    def changes(self, version: int) -> Iterator[Write]:
        """The writes after a version that created an object, changed its content or deleted it."""
        known: dict[tuple[str, str], str] = {}
        for write in self._all():
            before = known.get(write.key)
            if write.gone:
                known.pop(write.key, None)
            else:
                known[write.key] = write.content
            if write.version > version and (write.gone or before != write.content):
                yield write

    def started(self, version: int) -> dict[str, int]:
        """Application -> version at which it or an object of it was first made or changed after `version`."""
        found: dict[str, int] = {}
        for write in self.changes(version):
            if write.application and not write.gone:  # a prune is not a start
                found.setdefault(write.application, write.version)
        return found

    def gone(self, version: int) -> dict[str, int]:
        """Application -> version at which it was deleted, after `version`."""
        return {w.application: w.version for w in self.since(version) if w.gone and w.kind == "Application"}

    def settled(self, version: int) -> dict[str, int | None]:
        """Application -> version from which on all of it is ready; None: something of it is not.

        Only Applications that changed after `version`.
        """
        objects: dict[tuple[str, str], list[Write]] = {}
        for write in self._all():
            objects.setdefault(write.key, []).append(write)
        changed = self.started(version)
        found: dict[str, int | None] = dict(changed)
        for (kind, _), writes in objects.items():
            application = next((w.application for w in reversed(writes) if w.application), "")
            if kind == "Application" or application not in changed or writes[-1].gone:
                continue
            since = ready_since(writes)
            before = found[application]
            found[application] = None if since is None or before is None else max(before, since)
        return found


def ready_since(writes: Iterable[Write]) -> int | None:
    """The version since which an object has been ready with its current content; None if it is not ready."""
    since, content = None, ""
    for write in writes:
        if not write.ready or write.gone:
            since = None
        elif since is None or write.content != content:
            since = write.version
        content = write.content
    return since


def breaches(
    needs: dict[str, set[str]], started: dict[str, int], settled: dict[str, int | None]
) -> list[str]:
    """What was started although something that it needs was not ready; empty: the order held.

    Args:
        needs: Application -> all Applications that must be ready first, however indirectly.
        started: see `History.started`.
        settled: see `History.settled`; what is not in it did not change.
    """
    found = []
    for application, version in sorted(started.items()):
        for provider in sorted(needs.get(application, ())):
            if provider not in settled:
                continue
            ready = settled[provider]
            if ready is None:
                found.append(f"{application} was applied at {version}, but {provider} is not ready at all")
            elif ready >= version:
                found.append(
                    f"{application} was applied at {version}, before {provider} was ready at {ready}"
                )
    return found
