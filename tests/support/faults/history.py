# SPDX-License-Identifier: Apache-2.0
"""Everything that ever happened to FineTuneJobs, Jobs and pods of a cluster, in the order in which etcd wrote it.

resourceVersions order the events of all three watches; an API server that is killed meanwhile is watched again
from where it was.
"""

import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from tuneyard_api import names
from tuneyard_local.cluster import Cluster

PATHS = {
    "FineTuneJob": f"/apis/{names.API_VERSION}/{names.JOB_PLURAL}",
    "Job": f"/apis/batch/v1/jobs?labelSelector={names.LABEL_JOB}",
    "Pod": f"/api/v1/pods?labelSelector={names.LABEL_JOB}",
}
PATIENCE = 120.0
"""Seconds for whatever another process does, on a machine of two cores."""
_WATCH_SECONDS = 120
_GONE = 410
Body = dict[str, Any]


@dataclass(frozen=True)
class Happened:
    """An object as it was written, or as it was when it was deleted."""

    kind: str
    body: Body
    is_deleted: bool

    @property
    def version(self) -> int:
        return int(self.body["metadata"]["resourceVersion"])

    @property
    def uid(self) -> str:
        return str(self.body["metadata"]["uid"])


class Api:
    """A client of the API server as administrator, with the standard library only."""

    def __init__(self, cluster: Cluster) -> None:
        folder = cluster.folder.certificates
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
        self._server = cluster.plan.server
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def open(self, path: str, *, method: str = "GET", body: Body | None = None, seconds: float = 30) -> Any:
        """An open answer; raises OSError (HTTPError is one)."""
        request = urllib.request.Request(
            self._server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Content-Type": "application/merge-patch+json" if method == "PATCH" else "application/json"
            },
        )
        return self._opener.open(request, timeout=seconds)

    def ask(self, path: str, *, method: str = "GET", body: Body | None = None) -> Body:
        """The answer, parsed; raises OSError."""
        with self.open(path, method=method, body=body) as answer:
            parsed: Body = json.loads(answer.read())
            return parsed

    def items(self, path: str) -> list[Body]:
        return list(self.ask(path)["items"])


class History:
    """`with History(cluster) as history:` writes down all that happens from then on."""

    def __init__(self, cluster: Cluster) -> None:
        self.api = Api(cluster)
        self._happened: list[Happened] = []
        self._present: dict[tuple[str, str], Body] = {}
        self._gone: set[str] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._follow, args=(kind,), daemon=True) for kind in PATHS]
        self.gaps = 0
        """Number of times when events may have been missed, because the API server no longer had them."""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def happened(self, *, namespace: str) -> list[Happened]:
        """All events of a namespace, in the order of etcd."""
        with self._lock:
            mine = [each for each in self._happened if each.body["metadata"]["namespace"] == namespace]
        return sorted(mine, key=lambda each: each.version)

    def present(self, kind: str) -> list[Body]:
        """The objects that exist now, as far as is known."""
        with self._lock:
            return [body for (held, _), body in self._present.items() if held == kind]

    def version(self) -> int:
        """The newest version seen of anything."""
        with self._lock:
            return max((each.version for each in self._happened), default=0)

    def catch_up(self, seconds: float = 120) -> None:
        """Return when all watches have caught up with the cluster."""
        end = time.monotonic() + seconds
        for kind, path in PATHS.items():
            there = {
                body["metadata"]["uid"]: body["metadata"]["resourceVersion"] for body in self.api.items(path)
            }
            while not self._knows(kind, there):
                if time.monotonic() > end:
                    raise AssertionError(f"the watch of {kind} lags behind")
                time.sleep(0.05)

    def _knows(self, kind: str, there: dict[str, str]) -> bool:
        held = {
            body["metadata"]["uid"]: int(body["metadata"]["resourceVersion"]) for body in self.present(kind)
        }
        with self._lock:  # after what is present: who left in between is among those that are gone
            gone = set(self._gone)
        return all(uid in gone or held.get(uid, 0) >= int(version) for uid, version in there.items())

    def _follow(self, kind: str) -> None:
        path, version = PATHS[kind], ""
        while not self._stopped.is_set():
            try:
                if not version:
                    version = self._list(kind, path)
                separator = "&" if "?" in path else "?"
                query = f"watch=1&allowWatchBookmarks=true&timeoutSeconds={_WATCH_SECONDS}&resourceVersion={version}"
                with self.api.open(f"{path}{separator}{query}", seconds=_WATCH_SECONDS + 10) as stream:
                    for line in stream:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            if event["object"].get("code") == _GONE:
                                version = ""
                                self.gaps += 1
                            break
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            self._see(Happened(kind, event["object"], event["type"] == "DELETED"))
            except (OSError, ValueError) as error:
                if isinstance(error, urllib.error.HTTPError):
                    error.close()  # It holds a socket, and pytest reports those that nobody closes.
                time.sleep(0.2)

    def _list(self, kind: str, path: str) -> str:
        listed = self.api.ask(path)
        names_only = {"apiVersion": "", "kind": kind}
        for body in listed["items"]:
            self._see(Happened(kind, {**names_only, **body}, is_deleted=False))
        there = {body["metadata"]["uid"] for body in listed["items"]}
        for body in self.present(kind):
            if body["metadata"]["uid"] not in there:
                self._see(Happened(kind, body, is_deleted=True))
        return str(listed["metadata"]["resourceVersion"])

    def _see(self, what: Happened) -> None:
        with self._lock:
            self._happened.append(what)
            if what.is_deleted:
                self._present.pop((what.kind, what.uid), None)
                self._gone.add(what.uid)
            else:
                self._present[what.kind, what.uid] = what.body


def wait_until(what: str, look: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """The result of `look`; an API server that is down for a moment is asked again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            found = look()
        except OSError:
            found = None
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")
