# SPDX-License-Identifier: Apache-2.0
"""What follows a failed attempt is arithmetic on status: class, count, wait."""

from datetime import timedelta

import pytest
from support.samples import NOW, observed
from tuneyard_api import reasons
from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.status import Attempt
from tuneyard_api.survival import Retry
from tuneyard_operator.domain.acceptance import accept
from tuneyard_operator.domain.conditions import api_time
from tuneyard_operator.domain.frozen import Frozen
from tuneyard_operator.domain.retries import Again, backoff, next_attempt
from tuneyard_operator.domain.verdict import Verdict

UPSTREAM, INTERRUPTED, OOM, HUNG = (
    FailureClass.UPSTREAM,
    FailureClass.INTERRUPTED,
    FailureClass.OUT_OF_MEMORY,
    FailureClass.HUNG,
)


def failed(*kinds: FailureClass, minutes: float = 1, **last: object) -> list[Attempt]:
    attempts = [
        Attempt(
            stage=Stage.TRAIN,
            number=number,
            job=f"a-train-{number}",
            started=api_time(NOW),
            ended=api_time(NOW + timedelta(minutes=minutes)),
            outcome="Failed",
            failure_class=kind,
            message="words",
            charged=sum(each in {UPSTREAM, HUNG} for each in kinds[:number]),
            interrupted=kinds[:number].count(INTERRUPTED),
        )
        for number, kind in enumerate(kinds, start=1)
    ]
    return [*attempts[:-1], attempts[-1].model_copy(update=last)]


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [
        (failed(UPSTREAM), 10),
        (failed(UPSTREAM, UPSTREAM), 20),
        (failed(UPSTREAM, HUNG, UPSTREAM), 40),
        (failed(*[UPSTREAM] * 9), 300),
        (failed(*[UPSTREAM] * 60), 300),
        (failed(INTERRUPTED), 0),
        (failed(INTERRUPTED, INTERRUPTED), 10),
        (failed(INTERRUPTED, INTERRUPTED, minutes=11), 0),
        (failed(UPSTREAM, UPSTREAM, minutes=11), 10),
        (failed(UPSTREAM, OOM), 0),
        (failed(OOM, UPSTREAM), 10),
    ],
    ids=lambda value: (
        "-".join(each.failure_class for each in value) if isinstance(value, list) else str(value)
    ),
)
def test_the_wait_doubles_up_to_its_cap_and_begins_anew_after_a_healthy_run(
    attempts: list[Attempt], seconds: int
) -> None:
    assert backoff(attempts, Retry()) == timedelta(seconds=seconds)


def training(micro: int, accumulation: int):
    frozen = accept(observed())
    assert isinstance(frozen, Frozen)
    changes = {"micro_batch_size": micro, "gradient_accumulation": accumulation, "global_batch_size": 8}
    return frozen.plan.resolved.training.model_copy(update=changes)


@pytest.mark.parametrize(
    ("attempts", "reason"),
    [
        (failed(UPSTREAM, UPSTREAM, UPSTREAM), reasons.ATTEMPTS_EXHAUSTED),
        (failed(HUNG, HUNG, HUNG), reasons.ATTEMPTS_EXHAUSTED),
        (failed(*[INTERRUPTED] * 21), reasons.INTERRUPTED_TOO_OFTEN),
        (failed(OOM, micro_batch_size=1), "OutOfMemory"),
        *(
            (failed(kind), kind.value)
            for kind in FailureClass
            if kind not in {UPSTREAM, INTERRUPTED, OOM, HUNG}
        ),
    ],
    ids=lambda value: (
        "-".join(each.failure_class for each in value[:3]) if isinstance(value, list) else value
    ),
)
def test_what_would_fail_again_ends_the_job(attempts: list[Attempt], reason: str) -> None:
    verdict = next_attempt(attempts, Retry(), training(8, 1))
    assert isinstance(verdict, Verdict)
    assert (verdict.reason, verdict.final) == (reason, True)
    assert "words" in verdict.message


def test_interruptions_cost_no_attempt() -> None:
    assert isinstance(next_attempt(failed(*[INTERRUPTED] * 20), Retry(max_attempts=1), training(8, 1)), Again)


@pytest.mark.parametrize(
    ("micro", "accumulation", "former", "following"), [(8, 1, None, 4), (8, 1, 4, 2), (3, 2, None, 1)]
)
def test_out_of_memory_takes_a_smaller_micro_batch_and_says_so(
    micro: int, accumulation: int, former: int | None, following: int
) -> None:
    again = next_attempt(failed(OOM, micro_batch_size=former), Retry(), training(micro, accumulation))
    assert isinstance(again, Again)
    assert (again.micro_batch, again.reason) == (following, reasons.SMALLER_BATCH)
    share = micro * accumulation // following
    assert f"the next attempt has {following} x accumulation {share}, the same global batch of 8" in again.why


def test_a_smaller_micro_batch_is_kept_by_later_attempts() -> None:
    again = next_attempt(failed(OOM, INTERRUPTED, micro_batch_size=4), Retry(), training(8, 1))
    assert isinstance(again, Again)
    assert again.micro_batch == 4


def test_a_stage_without_micro_batches_has_nothing_to_make_smaller() -> None:
    attempts = [each.model_copy(update={"stage": Stage.PREPARE}) for each in failed(OOM)]
    verdict = next_attempt(attempts, Retry(), training(8, 1))
    assert isinstance(verdict, Verdict)
    assert verdict.final
