# SPDX-License-Identifier: Apache-2.0
"""Conditions, the state that is derived from them, and the patch that is written."""

from datetime import timedelta
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.samples import NOW
from support.world.merge_patch import merged
from tuneyard_api import reasons
from tuneyard_api.pod_contract import TrainingMeasures
from tuneyard_api.status import Condition, ConditionType, FineTuneJobStatus, ProgressStatus, State, WaitingFor
from tuneyard_operator.domain.conditions import Conditions, api_time, read_time, set_condition
from tuneyard_operator.domain.progress import duration_text
from tuneyard_operator.domain.state import derive_state, is_terminal
from tuneyard_operator.reconcile.report import status_patch

TRUE: Literal["True"] = "True"
FALSE: Literal["False"] = "False"


def condition(kind: str, status: str = "True", reason: str = "X") -> Condition:
    fields = {"type": kind, "status": status, "reason": reason, "message": "m", "observedGeneration": 1}
    return Condition.model_validate({**fields, "lastTransitionTime": api_time(NOW)})


DONE = {kind.value: condition(kind.value) for kind in ConditionType}
STATES: dict[str, tuple[tuple[Condition, ...], State]] = {
    "nothing is known yet": ((), State.PENDING),
    "a claim is missing before anything started": ((condition("Accepted", "False", reasons.CLAIM_MISSING),), State.PENDING),
    "data is prepared": ((DONE["Planned"], condition("DataReady", "False", reasons.PREPARING)), State.PREPARING),
    "the prepare pod can't start": ((condition("DataReady", "False", reasons.IMAGE_PULL),), State.WAITING),
    "the training pod is about to be placed": ((condition("Scheduled", "False", reasons.WAITING_FOR_POD),), State.TRAINING),
    "no GPU is free": ((condition("Scheduled", "False", reasons.WAITING_FOR_GPU),), State.WAITING),
    "attempt 2 waits after attempt 1 had trained": (
        (condition("Scheduled", "False", reasons.WAITING_FOR_GPU), condition("Trained", "False", reasons.TRAINING)),
        State.WAITING,
    ),
    "it trains": ((DONE["Scheduled"], condition("Trained", "False", reasons.TRAINING)), State.TRAINING),
    "it publishes": ((DONE["Evaluated"], condition("Published", "False", reasons.PUBLISHING)), State.PUBLISHING),
    "the endpoint has not looked yet": ((condition("Served", "False", reasons.WAITING_FOR_ENDPOINT),), State.SERVING),
    "it has succeeded": ((*DONE.values(),), State.SUCCEEDED),
    "it has failed": ((DONE["Accepted"], condition("Succeeded", "False", "BadInput")), State.FAILED),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_state_is_one_word_for_the_conditions(name: str) -> None:
    conditions, state = STATES[name]
    assert derive_state(conditions) is state
    assert is_terminal(conditions) == (state in {State.SUCCEEDED, State.FAILED})


def put(
    conditions: Conditions,
    kind: ConditionType,
    status: Literal["True", "False"],
    later: int,
    reason: str = "R",
) -> Conditions:
    now = NOW + timedelta(seconds=later)
    return set_condition(conditions, kind, status=status, reason=reason, message="m", generation=2, now=now)


def test_the_transition_time_moves_only_when_the_status_flips() -> None:
    first = put((), ConditionType.TRAINED, FALSE, 0)
    same = put(first, ConditionType.TRAINED, FALSE, 60, "Other")
    flipped = put(same, ConditionType.TRAINED, TRUE, 120)
    assert same[0].last_transition_time == api_time(NOW)
    assert same[0].reason == "Other"
    assert flipped[0].last_transition_time == api_time(NOW + timedelta(seconds=120))
    assert flipped[0].observed_generation == 2


@given(st.lists(st.sampled_from(list(ConditionType)), min_size=1, max_size=20))
def test_conditions_are_unique_and_in_the_order_of_the_steps(kinds: list[ConditionType]) -> None:
    conditions: Conditions = ()
    for kind in kinds:
        conditions = put(conditions, kind, TRUE, 0)
    assert [each.type for each in conditions] == [kind for kind in ConditionType if kind in kinds]


def test_messages_are_kept_within_the_crd_s_bound() -> None:
    conditions = set_condition(
        (), ConditionType.TRAINED, status=FALSE, reason="R", message="x" * 5000, generation=1, now=NOW
    )
    assert len(conditions[0].message) == 2048


def test_times_are_read_as_they_are_written() -> None:
    assert read_time(api_time(NOW)) == NOW
    assert read_time("2026-01-01T12:00:00.123456Z").microsecond == 123456


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (200, "3m20s"), (3600, "1h00m"), (7500, "2h05m"), (97200, "1d03h")],
)
def test_durations_are_two_units(seconds: int, text: str) -> None:
    assert duration_text(seconds) == text


WAITING = st.builds(
    WaitingFor,
    kind=st.just("Pod"),
    name=st.text(max_size=3),
    reason=st.just("R"),
    message=st.text(max_size=3),
)
PROGRESS = st.builds(
    ProgressStatus,
    step=st.integers(0, 9),
    of=st.just(9),
    percent=st.integers(0, 100),
    loss=st.none() | st.floats(0, 9),
    tokens_per_second=st.none(),
    eta=st.none() | st.just("3s"),
)
MEASURES = st.builds(  # by the names in JSON, as hypothesis makes up what the signature requires and it does not find
    TrainingMeasures,
    validationLoss=st.none() | st.floats(0, 9),
    bestStep=st.none() | st.integers(1, 9),
    trainedTokens=st.integers(0, 9),
    tokensPerSecond=st.floats(0, 9),
    peakMemoryBytes=st.none(),
)
STATUSES = st.builds(
    FineTuneJobStatus,
    state=st.sampled_from(State),
    message=st.none() | st.text(max_size=3),
    waiting_for=st.none() | WAITING,
    progress=st.none() | PROGRESS,
    training=st.none() | MEASURES,
)


@given(STATUSES, STATUSES)
def test_the_patch_turns_one_status_into_the_other(
    former: FineTuneJobStatus, wanted: FineTuneJobStatus
) -> None:
    before = former.model_dump(mode="json", by_alias=True, exclude_none=True)
    after = wanted.model_dump(mode="json", by_alias=True, exclude_none=True)
    patch = status_patch(former, wanted)
    assert merged(before, patch) == after
    assert bool(patch) == (before != after)


def test_the_first_state_is_written_although_it_is_the_default() -> None:
    first = FineTuneJobStatus().model_copy(update={"state": State.PENDING, "message": "waits"})
    assert status_patch(FineTuneJobStatus(), first) == {"state": "Pending", "message": "waits"}
    written = FineTuneJobStatus.model_validate({"state": "Pending", "message": "waits"})
    assert status_patch(written, first) == {}
