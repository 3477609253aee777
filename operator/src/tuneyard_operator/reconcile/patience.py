# SPDX-License-Identifier: Apache-2.0
"""Lets a status that only reports wait a moment, so that it is written with the next decision.

A status write costs the API server more CPU than anything else in a job, and many decisions come within a second.
What waits is in no memory: the next pass, or the next process, finds it again.
"""

from dataclasses import dataclass, field
from datetime import datetime

from tuneyard_operator.domain.decision import Decision
from tuneyard_operator.domain.lasting import may_wait
from tuneyard_operator.domain.observed import Observed
from tuneyard_operator.reconcile.queue import Key

PATIENCE = 1.0
"""Seconds for which a report waits at most."""


@dataclass
class Patience:
    """The time since which each job has something to report."""

    seconds: float = PATIENCE
    _since: dict[Key, datetime] = field(default_factory=dict)

    def left(self, key: Key, seen: Observed, decision: Decision, now: datetime) -> float | None:
        """Seconds for which what was decided may still wait; None: it is due, or there is nothing to write."""
        if decision.status == seen.status or not may_wait(seen.status, decision):
            self.forget(key)
            return None
        left = self.seconds - (now - self._since.setdefault(key, now)).total_seconds()
        if 0 < left <= self.seconds:  # More than that is left when the clock was set back.
            return left
        self.forget(key)
        return None

    def forget(self, key: Key) -> None:
        """Nothing of the job waits."""
        self._since.pop(key, None)
