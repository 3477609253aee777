# SPDX-License-Identifier: Apache-2.0
"""Fills in what a job leaves open, from its runtime and by arithmetic. Pure: same job, same plan, same digest."""

import hashlib
import json
from dataclasses import dataclass

from tuneyard_api import pod_contract as pod
from tuneyard_api.job import ClaimSource, DataSource, FineTuneJob, Lora, ModelSource
from tuneyard_api.runtime import FineTuneRuntime


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `path: message (got X); try Y`."""

    path: str
    message: str

    def __str__(self) -> str:
        """`spec.method: ...`."""
        return f"{self.path}: {self.message}"


@dataclass(frozen=True)
class Plan:
    """A job with nothing left to decide."""

    resolved: pod.ResolvedJob
    model: ModelSource
    registry: ClaimSource
    endpoint: str | None
    serve_timeout_seconds: int
    workspace_size_gib: int
    storage_class_name: str | None
    digest: str
    """SHA-256 of job.json without uid, hex."""
