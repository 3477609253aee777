# SPDX-License-Identifier: Apache-2.0
"""Follows a training: a thread of its first process sends each new line of metrics.jsonl to the tracker.

The training never waits for it. What could not be sent is in the workspace, from which the stage publish completes it.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tuneyard_api.tracking import ResolvedTracking

from tuneyard_trainer.pod.context import StageContext
from tuneyard_trainer.pod.failures import StageFailure
from tuneyard_trainer.tracking import attempts
from tuneyard_trainer.tracking.attempts import Attempt
from tuneyard_trainer.tracking.client import Mlflow, Run
from tuneyard_trainer.tracking.content import curve
from tuneyard_trainer.tracking.job_runs import JobRuns
from tuneyard_trainer.workspace.layout import METRICS
from tuneyard_trainer.workspace.metrics import Tail
from tuneyard_trainer.workspace.prepared import prepared_facts

POLL_SECONDS = 10.0
_TIMEOUT_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 300.0
LAST_WORDS_SECONDS = 3.0
"""Longest time for which the end of a training waits for a tracker that has answered so far."""


@contextmanager
def tracked(context: StageContext) -> Iterator[None]:
    """Follows the training in the block, in the first process of a job that has a tracker."""
    wanted = context.job.tracking
    if wanted is None or os.environ.get("RANK", "0") != "0":
        yield
        return
    follower = _Follower(context, wanted, attempts.begin(context))
    follower.start()
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        follower.leave(error)


class _Follower(threading.Thread):
    def __init__(self, context: StageContext, wanted: ResolvedTracking, attempt: Attempt) -> None:
        super().__init__(name="tracking", daemon=True)
        self._context, self._wanted, self._attempt = context, wanted, attempt
        self._tail = Tail(context.workspace / METRICS)
        self._runs: JobRuns | None = None
        self._run: Run | None = None
        self._over = threading.Event()
        self._failures = 0

    def run(self) -> None:
        while True:
            is_over = self._over.is_set()
            self._try(is_over=is_over)
            if is_over:
                return
            self._over.wait(min(_LONGEST_PAUSE_SECONDS, POLL_SECONDS * 2**self._failures))

    def leave(self, error: BaseException | None) -> None:
        """Let the thread send the rest, and wait for it if the tracker answers quickly."""
        self._attempt = attempts.end(self._context, self._attempt, error)
        self._over.set()
        if not self._failures:
            self.join(LAST_WORDS_SECONDS)

    def _try(self, *, is_over: bool) -> None:
        board = self._context.board
        try:
            self._send(is_over=is_over)
        except Exception as error:  # noqa: BLE001  a tracker must not harm a training, whatever it does
            if not self._failures:
                why = str(error) if isinstance(error, StageFailure) else f"{type(error).__name__}: {error}"
                board.say(
                    f"warning: tracking: {why}; the training goes on, and publish sends what is missing"
                )
            self._failures = min(self._failures + 1, 10)
            self._run = None
            return
        if self._failures:
            board.say("tracking: the tracker answers again")
        self._failures = 0

    def _send(self, *, is_over: bool) -> None:
        server = self._runs.server if self._runs else Mlflow(self._wanted.mlflow.url, _TIMEOUT_SECONDS)
        if self._run is None or self._runs is None:
            # The server says anew what it has: the answer to the last call may have been lost.
            self._runs = self._found(server)
            self._run = self._runs.attempt(self._attempt)
            self._context.board.update(tracking=self._runs.address)
            self._tail.rewind()
            if not is_over:
                server.end(self._runs.run, "RUNNING")
                server.end(self._run, "RUNNING")
        while lines := self._tail.read():
            mine: list[dict[str, Any]] = [
                line for line in lines if line.get("attempt") == self._attempt.number
            ]
            server.write(self._run, points=curve(mine, self._attempt.started))
        status = self._attempt.status
        if is_over and status is not None:
            server.end(self._run, status, self._attempt.ended)
            if status != "FINISHED":
                # If there is a next attempt, it says that the job runs again.
                server.end(self._runs.run, status, self._attempt.ended)

    def _found(self, server: Mlflow) -> JobRuns:
        facts = prepared_facts(self._context.workspace, self._context.job)
        first = min(
            (each.started for each in attempts.attempts_of(self._context)), default=self._attempt.started
        )
        return JobRuns.of(server, self._context.job, self._wanted.experiment, first, facts)
