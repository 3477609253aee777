# SPDX-License-Identifier: Apache-2.0
"""The runs of a job at the tracker: one for the job, and below it one for each attempt of its training."""

from typing import Self

from tuneyard_api.pod_contract import PrepareFacts, ResolvedJob

from tuneyard_trainer.tracking.attempts import Attempt
from tuneyard_trainer.tracking.client import Mlflow, Run
from tuneyard_trainer.tracking.content import KIND, NUMBER, UID, data_parameters, job_tags, parameters


class JobRuns:
    """They are found by the uid of the job, so that whoever comes later goes on with the same ones."""

    def __init__(self, server: Mlflow, job: ResolvedJob, experiment: str, run: Run) -> None:
        self.server, self.job, self._experiment, self.run = server, job, experiment, run

    @classmethod
    def of(
        cls,
        server: Mlflow,
        job: ResolvedJob,
        experiment_name: str,
        started: int,
        prepared: PrepareFacts | None,
    ) -> Self:
        """The run of the job, with its parameters and tags; it is made if it is not there.

        Raises:
            StageFailure: what MLflow refuses, or UpstreamUnavailable.
        """
        experiment = server.experiment(experiment_name)
        run = server.run(experiment, job.name, started, {UID: job.uid, KIND: "job"})
        server.write(
            run,
            params=parameters(job) | data_parameters(prepared),
            tags=job_tags(job, prepared),
        )
        return cls(server, job, experiment, run)

    def attempt(self, attempt: Attempt) -> Run:
        """The run of an attempt.

        Raises:
            StageFailure: as `of`.
        """
        key = {UID: self.job.uid, KIND: "attempt", NUMBER: str(attempt.number)}
        name = f"{self.job.name} attempt {attempt.number}"
        run = self.server.run(self._experiment, name, attempt.started, key)
        self.server.write(
            run,
            params=parameters(self.job) | attempt.parameters,
            tags={"mlflow.parentRunId": self.run.id} | job_tags(self.job, None),
        )
        return run

    @property
    def address(self) -> str:
        """The page of the job's run."""
        return self.server.address(self._experiment, self.run)
