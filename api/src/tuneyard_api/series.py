# SPDX-License-Identifier: Apache-2.0
"""The operator's series in Prometheus: name, meaning and labels, for whoever writes, draws, alerts on or documents them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Series:
    """One metric; Prometheus adds `_total` to the name of a counter, and `_bucket`, `_sum` and `_count` to a histogram's."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    sentence: str
    labels: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[str, str]:
        """Name and meaning."""
        return self.name, self.sentence

    @property
    def sample(self) -> str:
        """The name as a query writes it; of a histogram, its buckets'."""
        return self.name + {"counter": "_total", "gauge": "", "histogram": "_bucket"}[self.kind]


LEADER = Series("tuneyard_leader", "gauge", "1 in the replica that holds the Lease and works, 0 in others")
JOBS = Series("tuneyard_jobs", "gauge", "FineTuneJobs by state and its reason", ("state", "reason"))
GPUS = Series(
    "tuneyard_gpus",
    "gauge",
    "GPUs that jobs train on (state Training) or wait for (Queued, Waiting)",
    ("state",),
)
LONGEST_WAIT = Series(
    "tuneyard_longest_wait_seconds",
    "gauge",
    "Time for which the job that waits longest has been in its step",
    ("state",),
)
TOKENS_PER_SECOND = Series(
    "tuneyard_jobs_tokens_per_second", "gauge", "Tokens trained on in a second, over all jobs that train"
)
JOB_ENDS = Series("tuneyard_job_ends", "counter", "FineTuneJobs that ended", ("state", "reason"))
ATTEMPT_FAILURES = Series(
    "tuneyard_attempt_failures",
    "counter",
    "Failed attempts of stages by their failure class, also those that were tried again",
    ("stage", "failure_class"),
)
QUEUE_SECONDS = Series(
    "tuneyard_queue_seconds",
    "histogram",
    "Time of each training attempt from its start until all of its pods ran: queue, node, image, volumes",
)
HELD_SECONDS = Series(
    "tuneyard_held_gpu_seconds",
    "counter",
    "GPU seconds for which training pods held their GPUs, also those of jobs that were deleted",
    ("namespace",),
)
USEFUL_SECONDS = Series(
    "tuneyard_useful_gpu_seconds",
    "counter",
    "GPU seconds of optimizer steps that a checkpoint or the end of the training has kept; their share of the held ones is the goodput",
)
SERVED_SECONDS = Series(
    "tuneyard_served_seconds",
    "histogram",
    "Time from publication until every replica answered with the adapter",
)
PASS_SECONDS = Series("tuneyard_reconcile_seconds", "histogram", "Duration of one pass in seconds")
PASS_ERRORS = Series("tuneyard_reconcile_errors", "counter", "Number of failed passes")
QUEUE_LENGTH = Series("tuneyard_queue_length", "gauge", "Number of FineTuneJobs that wait for a pass")
API_REQUESTS = Series(
    "tuneyard_api_requests",
    "counter",
    "Number of requests to the Kubernetes API without watches; code 0 means no answer",
    ("verb", "resource", "code"),
)
SERIES = (
    *(JOBS, GPUS, LONGEST_WAIT, TOKENS_PER_SECOND, JOB_ENDS, ATTEMPT_FAILURES, QUEUE_SECONDS, HELD_SECONDS),
    *(USEFUL_SECONDS, SERVED_SECONDS, LEADER, PASS_SECONDS, PASS_ERRORS, QUEUE_LENGTH, API_REQUESTS),
)
