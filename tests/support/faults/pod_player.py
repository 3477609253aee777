# SPDX-License-Identifier: Apache-2.0
"""Plays the kubelet on a cluster without nodes: every scheduled pod runs for a moment and ends as its fate says."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from tuneyard_api import names
from tuneyard_api.pod_contract import Stage
from tuneyard_operator.domain.conditions import api_time

from support.faults.history import Body, History
from support.samples import result_text


@dataclass(frozen=True)
class Fate:
    """The course of an attempt."""

    seconds: float = 0.2
    """Seconds for which the attempt runs."""
    exit_code: int = 0
    signal: int | None = None


Plan = Callable[[Stage, int], Fate | None]
"""The end of an attempt; None: it does not continue for now."""


def all_well(_: Stage, __: int) -> Fate | None:
    return Fate()


def interrupted_once(stage: Stage, attempt: int) -> Fate | None:
    """The first training is killed."""
    return Fate(0.2, 137, 9) if (stage, attempt) == (Stage.TRAIN, 1) else Fate()


class PodPlayer:
    """`with PodPlayer(history) as player:` moves the pods of all jobs; `player.plan` may change at any time."""

    def __init__(self, history: History, plan: Plan = all_well) -> None:
        self._history, self.plan = history, plan
        self._began: dict[str, float] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(10)

    def _play(self) -> None:
        while not self._stopped.wait(0.05):
            for pod in self._history.present("Pod"):
                with contextlib.suppress(OSError):  # the API server is away, or the pod is gone: looks again
                    self._move(pod)

    def _move(self, pod: Body) -> None:
        metadata, phase = pod["metadata"], pod["status"].get("phase")
        if not pod["spec"].get("nodeName") or "deletionTimestamp" in metadata:
            return
        stage = Stage(metadata["labels"][names.LABEL_STAGE])
        if phase == "Pending":
            self._patch(pod, running())
            self._began.setdefault(metadata["uid"], time.monotonic())
        elif phase == "Running":
            fate = self.plan(stage, int(metadata["labels"][names.LABEL_ATTEMPT]))
            began = self._began.setdefault(metadata["uid"], time.monotonic())
            if fate is not None and time.monotonic() - began >= fate.seconds:
                self._patch(pod, ended(stage, metadata["annotations"][names.ANNOTATION_PLAN], fate))

    def _patch(self, pod: Body, status: Body) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        self._history.api.ask(path, method="PATCH", body={"status": status})


_CONTAINER: dict[str, Any] = {"name": "trainer", "image": "x", "imageID": "", "restartCount": 0}


def running() -> Body:
    state = {"running": {"startedAt": api_time(datetime.now(UTC))}}
    return {
        "phase": "Running",
        "podIP": "127.0.0.1",
        "podIPs": [{"ip": "127.0.0.1"}],
        "containerStatuses": [{**_CONTAINER, "ready": True, "state": state}],
    }


def ended(stage: Stage, digest: str, fate: Fate) -> Body:
    state: Body = {
        "exitCode": fate.exit_code,
        "reason": "Error" if fate.exit_code else "Completed",
        "message": "" if fate.exit_code else result_text(stage, digest),
    }
    if fate.signal is not None:
        state["signal"] = fate.signal
    return {
        "phase": "Failed" if fate.exit_code else "Succeeded",
        "containerStatuses": [{**_CONTAINER, "ready": False, "state": {"terminated": state}}],
    }
