# SPDX-License-Identifier: Apache-2.0
"""Plays every absent operator and kubelet: objects become ready after a while, or as a test says."""

import heapq
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from support.gitops.api_watch import MERGE, ApiWatch
from support.gitops.kinds import JOB, Kind, build_status, is_ready, status_without_times
from support.gitops.write_history import TRACKING, History

Json = dict[str, Any]


class AbsentOperators:
    """Each change of an object makes it `Working` at once and `Ready` after `seconds`; a deleted one is let go."""

    def __init__(self, history: History, seconds: float) -> None:
        self.api: ApiWatch = history.api
        self.seconds = seconds
        self.verdicts: dict[str, str] = {}
        """Application -> `Working` (it hangs) or `Failed`; what is not here becomes `Ready`."""
        self._due: list[tuple[float, int, Kind, str]] = []
        self._generations: dict[str, tuple[str, int]] = {}
        self._wake, self._over, self._count = threading.Condition(), False, itertools.count()
        self._thread = threading.Thread(target=self._work, daemon=True)
        history.listeners.append(self._hear)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._wake:
            self._over = True
            self._wake.notify()
        self._thread.join(10)

    @contextmanager
    def saying(self, application: str, state: str) -> Iterator[None]:
        """Within the block, the objects of an Application reach `state` and no later state."""
        self.verdicts[application] = state
        try:
            yield
        finally:
            del self.verdicts[application]

    def _hear(self, kind: Kind, entry: Json) -> None:
        if not kind.has_status:
            return
        metadata = entry["metadata"]
        if kind is JOB and TRACKING not in metadata.get("annotations", {}):
            return  # one of a FineTuneJob, which another stand-in carries out
        path = kind.path(metadata)
        stamp = metadata["uid"], metadata.get("generation", 1)
        if self._generations.get(path) != stamp:
            self._generations[path] = stamp
            self._plan(0.0, kind, path)

    def _plan(self, seconds: float, kind: Kind, path: str) -> None:
        with self._wake:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._count), kind, path))
            self._wake.notify()

    def _work(self) -> None:
        begun: dict[str, tuple[str, int]] = {}
        while True:
            with self._wake:
                while not self._over and (not self._due or self._due[0][0] > time.monotonic()):
                    self._wake.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._over:
                    return
                _, _, kind, path = heapq.heappop(self._due)
            entry = self.api.get(path)
            if entry is None:
                continue
            if "deletionTimestamp" in entry["metadata"]:
                self._let_go(path, entry)
                continue
            entry["kind"] = kind.kind
            stamp = entry["metadata"]["uid"], entry["metadata"].get("generation", 1)
            if begun.get(path) != stamp:
                begun[path] = stamp
                self._say(path, entry, "Working")
                self._plan(self.seconds, kind, path)
                continue
            application = entry["metadata"].get("annotations", {}).get(TRACKING, "").split(":")[0]
            state = self.verdicts.get(application, "Ready")
            is_done = is_ready(entry, has_status=True) and state == "Ready"
            if state != "Ready" or (kind is JOB and not is_done):
                self._plan(
                    0.5, kind, path
                )  # until the test lets go of it, or its controller has made and counted the pods
            if not is_done:
                self._say(path, entry, state)

    def _let_go(self, path: str, entry: Json) -> None:
        """Take the finalizers of operators off, which have a domain; those of Kubernetes have none."""
        kept = [name for name in entry["metadata"].get("finalizers", ()) if "." not in name]
        if kept != entry["metadata"].get("finalizers", []):
            self.api.send("PATCH", path, {"metadata": {"finalizers": kept}}, MERGE)

    def _say(self, path: str, entry: Json, state: str) -> None:
        if entry["kind"] == JOB.kind:
            self._end_pods(entry["metadata"], {"Ready": "Succeeded", "Failed": "Failed"}.get(state))
            return
        status = build_status(entry, state)
        if status_without_times(entry.get("status") or {}) != status_without_times(status):
            self.api.send("PATCH", f"{path}/status", {"status": status}, MERGE)

    def _end_pods(self, job: Json, phase: str | None) -> None:
        """End the pods of a Job as their kubelet would; None: they go on."""
        pods = f"/api/v1/namespaces/{job['namespace']}/pods"
        listed = self.api.get(f"{pods}?labelSelector=job-name%3D{job['name']}") if phase else None
        for pod in (listed or {}).get("items") or ():
            if (pod.get("status") or {}).get("phase") == "Pending":
                self.api.send(
                    "PATCH", f"{pods}/{pod['metadata']['name']}/status", {"status": {"phase": phase}}, MERGE
                )
