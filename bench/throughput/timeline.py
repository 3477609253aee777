# SPDX-License-Identifier: Apache-2.0
"""When what happened to which job, as one observer saw it. Pure: the moments come in as arguments."""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneyard_api import names


@dataclass(slots=True)
class Track:
    """Moments of one job, in seconds of one clock."""

    sent: float | None = None
    """Its first object was about to be created."""
    first_pod: float | None = None
    last_pod_ended: float | None = None
    done: float | None = None


@dataclass(frozen=True)
class Figures:
    """How fast a run was."""

    wall_seconds: float
    jobs_per_second: float
    created_to_first_pod_ms: Mapping[str, float]
    last_pod_ended_to_done_ms: Mapping[str, float]


class Timeline:
    """The tracks of all jobs of a run."""

    def __init__(self, jobs: Iterable[str]) -> None:
        self.tracks = {job: Track() for job in jobs}
        self.finished = asyncio.Event()
        self._left = len(self.tracks)

    @property
    def left(self) -> int:
        """Jobs that are not done."""
        return self._left

    def sent(self, job: str, at: float) -> None:
        """The first object of a job is about to be created."""
        self.tracks[job].sent = at

    def saw_pod(self, pod: Mapping[str, Any], at: float) -> None:
        """A pod was added or has changed."""
        track = self.tracks[pod["metadata"]["labels"][names.LABEL_JOB]]
        if track.first_pod is None:
            track.first_pod = at
        stage = pod["metadata"]["labels"][names.LABEL_STAGE]
        if stage == "publish" and pod["status"].get("phase") == "Succeeded" and track.last_pod_ended is None:
            track.last_pod_ended = at

    def saw_done(self, job: str, at: float) -> None:
        """A job is said to be over; what is said again does not count."""
        if self.tracks[job].done is None:
            self.tracks[job].done = at
            self._left -= 1
            if not self._left:
                self.finished.set()

    def figures(self) -> Figures:
        """Raises ValueError when something was not seen."""
        tracks = list(self.tracks.values())
        sent = _complete("sent", [track.sent for track in tracks])
        first = _complete("first pod", [track.first_pod for track in tracks])
        ended = _complete("last pod's end", [track.last_pod_ended for track in tracks])
        done = _complete("end", [track.done for track in tracks])
        wall = max(done) - min(sent)
        return Figures(
            wall_seconds=round(wall, 3),
            jobs_per_second=round(len(tracks) / wall, 2),
            created_to_first_pod_ms=_spread(sent, first),
            last_pod_ended_to_done_ms=_spread(ended, done),
        )


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def _complete(what: str, moments: Sequence[float | None]) -> list[float]:
    seen = [moment for moment in moments if moment is not None]
    if len(seen) < len(moments):
        raise ValueError(f"the {what} of {len(moments) - len(seen)} jobs was not seen")
    return seen


def _spread(since: Sequence[float], until: Sequence[float]) -> dict[str, float]:
    waits = [(end - start) * 1000 for start, end in zip(since, until, strict=True)]
    return {"p50": round(percentile(waits, 0.5), 1), "p99": round(percentile(waits, 0.99), 1)}
