# SPDX-License-Identifier: Apache-2.0
"""Decides after a failed attempt whether there is another one, when, and with which micro batch.

Pure arithmetic on what status says of the attempts, so that a restarted operator comes to the same answer. See docs/adr/0008-survival.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tuneyard_api import reasons
from tuneyard_api.planner import smaller_micro_batch
from tuneyard_api.pod_contract import FailureClass, ResolvedTraining, Stage
from tuneyard_api.status import Attempt
from tuneyard_api.survival import Retry

from tuneyard_operator.domain.conditions import read_time
from tuneyard_operator.domain.verdict import Verdict

HEALTHY = timedelta(minutes=10)
"""An attempt that ran this long was not a quick failure, so the back-off starts over."""
_LAST_DOUBLING = 20
CHARGED = frozenset({FailureClass.UPSTREAM, FailureClass.HUNG})
"""Classes that count against retry.maxAttempts."""


@dataclass(frozen=True, slots=True)
class Again:
    """The next attempt."""

    not_before: datetime
    micro_batch: int | None
    """Micro batch; None: the planned one."""
    reason: str
    why: str


def next_attempt(attempts: Sequence[Attempt], retry: Retry, training: ResolvedTraining) -> Again | Verdict:
    """The attempt that follows the last one of `attempts` (oldest first), which is over and did not succeed."""
    last = attempts[-1]
    ended = read_time(last.ended or last.started)
    if last.outcome == "Stopped":
        return Again(ended, last.micro_batch_size, reasons.RESUMED, "nothing holds it back any more")
    kind, message = last.failure_class or FailureClass.INTERRUPTED, last.message or "its result was lost"
    if kind is FailureClass.OUT_OF_MEMORY and last.stage is Stage.TRAIN:
        return _with_less_memory(last, training, ended, message)
    if kind is FailureClass.INTERRUPTED and last.interrupted > retry.max_interruptions:
        text = f"{last.stage} was interrupted {last.interrupted} times; the last: {message}"
        return Verdict(reasons.INTERRUPTED_TOO_OFTEN, text, final=True)
    if kind in CHARGED and last.charged >= retry.max_attempts:
        text = f"gave up after {last.charged} attempts of {last.stage}; the last: {message}"
        return Verdict(reasons.ATTEMPTS_EXHAUSTED, text, final=True)
    if kind not in CHARGED and kind is not FailureClass.INTERRUPTED:
        return Verdict(kind.value, message, final=True)
    return Again(ended + backoff(attempts, retry), last.micro_batch_size, reasons.RETRYING, message)


def backoff(attempts: Sequence[Attempt], retry: Retry) -> timedelta:
    """The wait after the last attempt: exponential in the failures without a healthy one between them, capped.

    The first interruption is retried at once, as it may never happen again.
    """
    failures = 0
    for attempt in reversed(attempts):
        if attempt.outcome != "Failed" or attempt.failure_class is FailureClass.OUT_OF_MEMORY:
            break
        failures += 1
        began = read_time(attempt.running_since or attempt.started)
        if read_time(attempt.ended or attempt.started) - began >= HEALTHY:
            break
    if attempts[-1].failure_class is FailureClass.INTERRUPTED:
        failures -= 1
    if failures <= 0:
        return timedelta()
    doubled = retry.backoff_seconds * 2 ** min(failures - 1, _LAST_DOUBLING)
    return timedelta(seconds=min(doubled, retry.max_backoff_seconds))


def _with_less_memory(
    last: Attempt, training: ResolvedTraining, ended: datetime, message: str
) -> Again | Verdict:
    micro = last.micro_batch_size or training.micro_batch_size
    share = training.micro_batch_size * training.gradient_accumulation
    smaller = smaller_micro_batch(micro, share // micro)
    if smaller is None:
        return Verdict(FailureClass.OUT_OF_MEMORY.value, f"{message} (micro batch {micro})", final=True)
    text = (
        f"micro batch {micro} ran out of memory; the next attempt has {smaller} x accumulation {share // smaller},"
        f" the same global batch of {training.global_batch_size}: {message}"
    )
    return Again(ended, smaller, reasons.SMALLER_BATCH, text)
