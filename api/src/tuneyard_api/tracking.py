# SPDX-License-Identifier: Apache-2.0
"""Experiment tracking: where a runtime's jobs write their record to, and what a job says about it.

The workspace and the registry keep the record of a job. A tracker gets a copy, and no job waits for it or fails with it:
docs/adr/0015-tracking-is-a-copy.md has the reasons.
"""

from typing import Annotated

from pydantic import Field

from tuneyard_api.base import Contract, HttpUrl

MAX_EXPERIMENT = 250
"""Longest name of an experiment, in characters; MLflow takes twice as many."""


class Mlflow(Contract):
    """An MLflow server that asks for no login."""

    url: HttpUrl
    """Address of the server, which the pods of training and publish must reach."""


class RuntimeTracking(Contract):
    """The tracker of a runtime's jobs."""

    mlflow: Mlflow
    """MLflow."""


class Tracking(Contract):
    """What the tracker of the runtime keeps of the job; without an effect where the runtime has none."""

    experiment: Annotated[str, Field(min_length=1, max_length=MAX_EXPERIMENT)] | None = None
    """Experiment that the job belongs to; absent: the job's namespace and the name of the base model, as `team-a/tiny-llama`."""
    disabled: bool = False
    """Whether nothing is written to the tracker."""


class ResolvedTracking(Contract):
    """What a pod must know to write to the tracker."""

    mlflow: Mlflow
    experiment: str
