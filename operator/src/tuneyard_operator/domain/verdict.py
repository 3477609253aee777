# SPDX-License-Identifier: Apache-2.0
"""The answer of a small named check, and the rule that the first answer of a chain wins."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from tuneyard_api.pod_contract import FailureClass
from tuneyard_api.status import WaitingFor

Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a step is not done. A check that has nothing to say returns None."""

    reason: str
    """A constant of `tuneyard_api.reasons`."""
    message: str
    final: bool = False
    """Whether the job has failed for good."""
    waiting_for: WaitingFor | None = None
    """The object that blocks the job, if it is a single object."""
    again_after: float | None = None
    """Seconds until the next look, if the check knows better than the step."""


@dataclass(frozen=True, slots=True)
class StageFailure:
    """Why an attempt of a stage failed."""

    failure_class: FailureClass
    message: str
    """One sentence with the evidence."""
    last_lines: str = ""
    """End of the log of the pod that failed first, as far as it is known."""


Check = Callable[[Subject], Verdict | None]


def first_verdict(checks: Iterable[Check[Subject]], subject: Subject) -> Verdict | None:
    """The first verdict of an ordered chain, or None when every check is content."""
    for check in checks:
        verdict = check(subject)
        if verdict is not None:
            return verdict
    return None
