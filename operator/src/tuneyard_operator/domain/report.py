# SPDX-License-Identifier: Apache-2.0
"""The status of one pass while it is being decided: steps met and unmet, attempts, facts, and the sentence on top."""

from datetime import datetime
from typing import Any, Literal

from tuneyard_api import reasons
from tuneyard_api.pod_contract import FailureClass, Stage, StageResult
from tuneyard_api.status import Attempt, ConditionType, FineTuneJobStatus, ResultStatus

from tuneyard_operator.domain.conditions import api_time, clip, is_true, set_condition
from tuneyard_operator.domain.customizations import SeenCustomization
from tuneyard_operator.domain.deadlines import queued_for, ran
from tuneyard_operator.domain.decision import Note
from tuneyard_operator.domain.retries import CHARGED
from tuneyard_operator.domain.state import derive_state, is_after
from tuneyard_operator.domain.verdict import StageFailure, Verdict

_MAX_ATTEMPTS_KEPT, _LOGS_KEPT = 64, 3
_WORTH_AN_EVENT = reasons.WAITING - {reasons.WAITING_FOR_ENDPOINT, reasons.QUEUED}
"""An endpoint that has not looked at the registry yet is no news, nor is a queue that does its work."""


class Report:
    """The status under construction: it starts as the last written status and ends as the one to write."""

    def __init__(self, former: FineTuneJobStatus, generation: int, now: datetime) -> None:
        self.former, self.status, self.generation, self.now = former, former, generation, now
        self.notes: list[Note] = []

    def change(self, **fields: Any) -> None:
        """Replace fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def change_result(self, **fields: Any) -> None:
        """Replace fields of the result."""
        self.change(result=(self.status.result or ResultStatus()).model_copy(update=fields))

    def is_met(self, step: ConditionType) -> bool:
        """Whether a step is done."""
        return is_true(self.status.conditions, step)

    def met(self, step: ConditionType, reason: str, message: str) -> None:
        """Record that a step is done."""
        self._set(step, "True", reason, message)

    def unmet(self, step: ConditionType, verdict: Verdict) -> None:
        """Record why a step is not done, as the status's message, and drop the unmet conditions of later steps."""
        met = tuple(
            each for each in self.status.conditions if each.status == "True" or not is_after(each.type, step)
        )
        self.change(conditions=met)
        self._set(step, "False", verdict.reason, verdict.message)
        former = self.former.waiting_for
        waiting = verdict.waiting_for
        told = verdict.reason not in _WORTH_AN_EVENT or (
            former is not None and former.reason == verdict.reason
        )
        if not told and not verdict.final:
            self.notes.append(Note("Warning", verdict.reason, verdict.message))
        self.change(waiting_for=waiting, message=clip(verdict.message))
        if verdict.final:
            self._set(ConditionType.SUCCEEDED, "False", verdict.reason, verdict.message)
            self.change(ended=api_time(self.now), waiting_for=None)
            self.notes.append(Note("Warning", verdict.reason, verdict.message))

    def succeed(self, message: str) -> None:
        """Record that every step is done."""
        self._set(ConditionType.SUCCEEDED, "True", reasons.SUCCEEDED, message)
        self.change(ended=api_time(self.now), waiting_for=None, message=clip(message))
        self.notes.append(Note("Normal", reasons.SUCCEEDED, message))

    def finish(self) -> FineTuneJobStatus:
        """The status to write; equal to the former one when nothing has changed."""
        self.change(observed_generation=self.generation, state=derive_state(self.status.conditions))
        return self.status

    def latest_attempt(self, stage: Stage) -> Attempt | None:
        """The newest attempt of a stage."""
        return max(self.attempts(stage), key=lambda attempt: attempt.number, default=None)

    def attempts(self, stage: Stage) -> list[Attempt]:
        """The attempts of a stage."""
        return [attempt for attempt in self.status.attempts if attempt.stage is stage]

    def begin(self, stage: Stage, number: int, job: str, micro_batch: int | None) -> Attempt:
        """Record a new attempt."""
        former = self.latest_attempt(stage)
        attempt = Attempt(
            stage=stage,
            number=number,
            job=job,
            started=api_time(self.now),
            outcome="Running",
            micro_batch_size=micro_batch,
            charged=former.charged if former else 0,
            interrupted=former.interrupted if former else 0,
        )
        self.change(attempts=(*self.status.attempts, attempt)[-_MAX_ATTEMPTS_KEPT:])
        return attempt

    def note(self, attempt: Attempt, **fields: Any) -> Attempt:
        """Change fields of an attempt."""
        noted = attempt.model_copy(update=fields)
        self.change(attempts=tuple(noted if each == attempt else each for each in self.status.attempts))
        return noted

    def queue(self, attempt: Attempt) -> Attempt:
        """Record that its queue holds an attempt back from now on; what its pods said while they were taken away is dropped."""
        self.change(active_seconds=(self.status.active_seconds or 0) + ran(attempt, self.now))
        since = api_time(self.now)
        return self.note(
            attempt, queued_since=since, running_since=None, failure_class=None, message=None, last_lines=None
        )

    def let_go(self, attempt: Attempt) -> Attempt:
        """Record that its queue has let an attempt go."""
        queued = attempt.queued_seconds + queued_for(attempt, self.now)
        return self.note(attempt, started=api_time(self.now), queued_since=None, queued_seconds=queued)

    def end(self, attempt: Attempt, ending: StageResult | SeenCustomization | StageFailure | None) -> Attempt:
        """Record the end of an attempt; None means that the operator stopped it."""
        fields: dict[str, Any] = {"ended": api_time(self.now), "outcome": "Stopped"}
        if isinstance(ending, StageResult | SeenCustomization):
            # A pod that was to be taken away may have ended well before that.
            fields |= {"outcome": "Succeeded", "failure_class": None, "message": None, "last_lines": None}
        elif ending is not None:
            kind = ending.failure_class
            fields |= {
                "outcome": "Failed",
                "failure_class": kind,
                "message": clip(ending.message),
                "last_lines": ending.last_lines or None,
                "charged": attempt.charged + (kind in CHARGED),
                "interrupted": attempt.interrupted + (kind is FailureClass.INTERRUPTED),
            }
        self.change(active_seconds=(self.status.active_seconds or 0) + ran(attempt, self.now))
        if attempt.queued_since is not None:
            fields |= {
                "queued_since": None,
                "queued_seconds": attempt.queued_seconds + queued_for(attempt, self.now),
            }
        ended = self.note(attempt, **fields)
        self._drop_older_lines()
        return ended

    def _drop_older_lines(self) -> None:
        """Ends of logs stay with the newest attempts that have one, so that status stays small."""
        for attempt in [each for each in self.status.attempts if each.last_lines][:-_LOGS_KEPT]:
            self.note(attempt, last_lines=None)

    def hold(self, why: Verdict) -> None:
        """Record that nothing of the job runs, because a person suspends it or its budget is spent."""
        self._set(ConditionType.SUSPENDED, "True", why.reason, why.message)
        self.change(waiting_for=None, message=why.message)

    def release(self, reason: str, message: str) -> None:
        """Record that the job is not (or not yet) suspended."""
        if self.is_met(ConditionType.SUSPENDED):
            self._set(ConditionType.SUSPENDED, "False", reason, message)

    def _set(self, step: ConditionType, status: Literal["True", "False"], reason: str, message: str) -> None:
        conditions = set_condition(
            self.status.conditions,
            step,
            status=status,
            reason=reason,
            message=message,
            generation=self.generation,
            now=self.now,
        )
        self.change(conditions=conditions)
