# SPDX-License-Identifier: Apache-2.0
"""Who uses the GPUs: jobs that train now, and GPU hours by namespace and by who asked. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from tuneyard_api.status import State

from tuneyard.client.job import Job

NOBODY = "(no label)"
"""Stands for jobs without the label `tuneyard.io/requested-by`."""


@dataclass(frozen=True)
class Usage:
    """What FineTuneJobs that still exist have used; hours of deleted ones are not in it."""

    training: tuple[Job, ...]
    """Jobs that train now, the one with most GPUs first."""
    by_namespace: dict[str, float]
    """GPU hours, most first."""
    by_requester: dict[str, float]
    """GPU hours by label `tuneyard.io/requested-by`, most first."""

    @property
    def tokens_per_second(self) -> float:
        """Speed of all jobs that train now, over all their GPUs."""
        speeds = (job.status.progress.tokens_per_second for job in self.training if job.status.progress)
        return sum(speed or 0.0 for speed in speeds)

    @property
    def gpus(self) -> int:
        """GPUs of all jobs that train now."""
        return sum(job.status.plan.gpus for job in self.training if job.status.plan)


def usage_of(jobs: Iterable[Job]) -> Usage:
    """The usage of some jobs."""
    jobs = list(jobs)
    training = [job for job in jobs if job.status.state is State.TRAINING]
    gpus = {job.uid: job.status.plan.gpus if job.status.plan else 0 for job in training}
    return Usage(
        training=tuple(sorted(training, key=lambda job: (-gpus[job.uid], job.namespace, job.name))),
        by_namespace=_hours((job.namespace, job.gpu_hours) for job in jobs),
        by_requester=_hours((job.requested_by or NOBODY, job.gpu_hours) for job in jobs),
    )


def _hours(used: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, hours in used:
        sums[name] = sums.get(name, 0.0) + hours
    return {
        name: round(hours, 3) for name, hours in sorted(sums.items(), key=lambda each: (-each[1], each[0]))
    }
