# SPDX-License-Identifier: Apache-2.0
"""A stage's Job that its queue holds back: Kueue suspends it until there is quota, or again to take the place away.

The Job stays the same one: it keeps its place in the queue, and its attempt goes on from the last checkpoint.
"""

from dataclasses import replace
from datetime import timedelta

from tuneyard_api import reasons
from tuneyard_api.status import WaitingFor

from tuneyard_operator.domain.observed import SeenJob, SeenPod, SeenQueue
from tuneyard_operator.domain.quotas import too_small_queue
from tuneyard_operator.domain.verdict import Verdict

SOON, LATER, LATEST = 2.0, 30.0, 300.0
"""Seconds until the next look: at a queue that knows nothing of the Job yet, at the front of one, and far behind."""

_CLOCKS = timedelta(seconds=5)
"""How far the clocks of API server and controller manager may be apart."""


def since_let_go(job: SeenJob, pods: tuple[SeenPod, ...]) -> tuple[SeenPod, ...]:
    """The pods without those that ended when the queue took the place away: their end is no failure of what runs now."""
    if job.started is None:
        return pods
    began = job.started - _CLOCKS
    return tuple(pod for pod in pods if pod.created >= began or not pod.is_over)


def why_held(job: SeenJob, queue: SeenQueue | None) -> Verdict:
    """What a suspended Job waits for."""
    seen = queue or SeenQueue()
    if not job.queue:
        who = "somebody has set its spec.suspend, or Kueue holds every Job that names no queue"
        return _verdict("Job", job.name, f"is suspended and in no queue: {who}; try scheduling.queue")
    if not seen.is_served:
        missing = "this cluster has no Kueue, which would let the job go; try installing it, or a job without scheduling.queue"
        return _verdict("LocalQueue", job.queue, missing)
    if seen.cluster_queue is None:
        missing = "does not exist in this namespace; try another scheduling.queue, or none"
        return _verdict("LocalQueue", job.queue, missing, SOON)
    if seen.workload is None:
        unknown = f"Kueue has no Workload for Job {job.name} yet"
        return _verdict("LocalQueue", job.queue, unknown, SOON)
    why = seen.message or "not looked at yet"
    place = f", position {seen.position}" if seen.position is not None else ""
    verdict = _verdict("Workload", seen.workload, f"ClusterQueue {seen.cluster_queue}{place}: {why}")
    where = {"cluster_queue": seen.cluster_queue, "position": seen.position}
    return replace(
        verdict,
        waiting_for=verdict.waiting_for and verdict.waiting_for.model_copy(update=where),
        again_after=_patience(seen.position),
    )


def why_never(job: SeenJob, queue: SeenQueue | None) -> Verdict | None:
    """The end of a Job that its queue can never let go; None where waiting may help."""
    if not job.queue or queue is None or queue.cluster_queue is None:
        return None
    return too_small_queue(queue.cluster_queue, queue.message)


def _patience(position: int | None) -> float:
    """Seconds until the next look: the whole queue moves at once, and each move that is told is a write of a status.

    Those near the front are told soon; of 1,000 jobs in a queue, less than four a second are written.
    """
    return min(LATER * (1 + (position or 1) // 10), LATEST)


def _verdict(kind: str, name: str, message: str, again_after: float = LATER) -> Verdict:
    waiting = WaitingFor(kind=kind, name=name, reason=reasons.QUEUED, message=message[:2048])
    sentence = f"waits for {kind} {name}: {message}"
    return Verdict(reasons.QUEUED, sentence, waiting_for=waiting, again_after=again_after)
