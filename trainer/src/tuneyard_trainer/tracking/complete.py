# SPDX-License-Identifier: Apache-2.0
"""Completes the record of a job at the tracker from the workspace, when its training is over."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from tuneyard_api.names import GROUP
from tuneyard_api.pod_contract import TrainFacts
from tuneyard_api.tracking import ResolvedTracking

from tuneyard_trainer.fetch.patience import patiently
from tuneyard_trainer.pod.context import StageContext
from tuneyard_trainer.pod.failures import Interrupted, StageFailure
from tuneyard_trainer.record.curve import evenly
from tuneyard_trainer.tracking.attempts import Attempt, attempts_of, now
from tuneyard_trainer.tracking.client import Mlflow, Status
from tuneyard_trainer.tracking.content import curve, measures
from tuneyard_trainer.tracking.job_runs import JobRuns
from tuneyard_trainer.workspace.layout import METRICS
from tuneyard_trainer.workspace.metrics import read_metrics
from tuneyard_trainer.workspace.prepared import prepared_facts

_TIMEOUT_SECONDS = 10.0
_TOTAL_SECONDS = 300.0
"""Longest time for which a publication waits for its tracker."""
_MAX_LINES = 10_000
"""Most lines of the loss curve that are sent at once; those that were sent while the job trained are there besides."""

Line = dict[str, Any]


@dataclass(frozen=True)
class Completed:
    """The result of completing a record."""

    address: str | None = None
    """The page of the job's run; None: there is none, or nobody knows it."""
    warnings: tuple[str, ...] = ()


def complete(
    context: StageContext, trained: TrainFacts, digest: str, why_failed: str | None = None
) -> Completed:
    """Sends what the tracker does not have; it never fails, as nothing depends on it.

    `why_failed` says why nothing is published.

    Raises:
        Interrupted: SIGTERM came.
    """
    wanted = context.job.tracking
    if wanted is None:
        return Completed()
    try:
        return Completed(_Sender(context, wanted).send(trained, digest, why_failed))
    except Interrupted:
        raise
    except StageFailure as failure:
        why = str(failure)
    except Exception as error:  # noqa: BLE001  a tracker must not harm a job, whatever it does
        why = f"{type(error).__name__}: {error}"
    warning = (
        f"the tracker lacks a part of this job: {why}; metrics.jsonl and report.html beside the adapter have all of"
        " it (`kubectl tuneyard fetch`)"
    )
    context.board.say(f"warning: {warning}")
    return Completed(warnings=(warning,))


class _Sender:
    def __init__(self, context: StageContext, wanted: ResolvedTracking) -> None:
        self._context, self._wanted = context, wanted
        self._server = Mlflow(wanted.mlflow.url, _TIMEOUT_SECONDS, total_seconds=_TOTAL_SECONDS)
        self._known = attempts_of(context)
        self._began = min((each.started for each in self._known), default=now())
        self._ended = max((each.ended or each.started for each in self._known), default=now())

    def send(self, trained: TrainFacts, digest: str, why_failed: str | None) -> str:
        """The address of the job's run, after everything was sent."""
        lines = evenly(read_metrics(self._context.workspace / METRICS), _MAX_LINES)
        for attempt in self._known:
            patiently(partial(self._tell_attempt, attempt, lines))
        return patiently(partial(self._tell_job, trained, digest, why_failed, lines))

    def _tell_attempt(self, attempt: Attempt, lines: list[Line]) -> None:
        run = self._runs().attempt(attempt)
        mine = [line for line in lines if line.get("attempt") == attempt.number]
        said = {f"{GROUP}/failed": attempt.message} if attempt.message else {}
        self._server.write(run, tags=said, points=curve(mine, attempt.started))
        # One that says no end was killed, but for the last: what it trained is published now.
        status: Status = "FINISHED" if attempt is self._known[-1] else "KILLED"
        self._server.end(run, attempt.status or status, attempt.ended or attempt.started)

    def _tell_job(self, trained: TrainFacts, digest: str, why_failed: str | None, lines: list[Line]) -> str:
        runs = self._runs()
        tags = {f"{GROUP}/plan-digest": self._context.plan_digest}
        tags |= {f"{GROUP}/failed": why_failed} if why_failed else {f"{GROUP}/adapter-digest": digest}
        points = [*curve(lines, self._began), *measures(trained, self._ended)]
        self._server.write(runs.run, tags=tags, points=points)
        self._server.end(runs.run, "FAILED" if why_failed else "FINISHED", now())
        return runs.address

    def _runs(self) -> JobRuns:
        """The runs as the server has them now: the answer to an earlier call may have been lost."""
        context = self._context
        facts = prepared_facts(context.workspace, context.job)
        return JobRuns.of(self._server, context.job, self._wanted.experiment, self._began, facts)
