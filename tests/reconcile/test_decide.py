# SPDX-License-Identifier: Apache-2.0
"""decide by itself: an end is never left, and what it asks for is what a stranger would expect."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.samples import NOW, job_spec, observed, runtime_spec, seen_job, seen_pod
from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import Attempt, Condition, ConditionType, FineTuneJobStatus
from tuneyard_operator.domain.acceptance import accept
from tuneyard_operator.domain.conditions import api_time
from tuneyard_operator.domain.decide import decide
from tuneyard_operator.domain.decision import Delete
from tuneyard_operator.domain.frozen import Frozen, FrozenUnreadableError, frozen_data, read_frozen
from tuneyard_operator.domain.observed import SeenCondition
from tuneyard_operator.domain.steps.step import RECHECK_SECONDS

ENDS = st.builds(
    lambda status, state: FineTuneJobStatus(
        state=state,
        conditions=(
            Condition(
                type=ConditionType.SUCCEEDED,
                status=status,
                reason="R",
                message="m",
                observed_generation=1,
                last_transition_time=api_time(NOW),
            ),
        ),
    ),
    st.sampled_from(["True", "False"]),
    st.sampled_from(["Succeeded", "Failed"]),
)


@given(
    status=ENDS,
    generation=st.integers(1, 3),
    jobs=st.lists(st.sampled_from([seen_job(), seen_job(Stage.PUBLISH)])),
)
def test_an_end_absorbs(status: FineTuneJobStatus, generation: int, jobs: list) -> None:
    seen = observed(
        status=status, generation=generation, jobs=tuple(jobs), pods=(seen_pod(),), spec={"new": 1}
    )
    decision = decide(seen, NOW)
    assert decision.status == status
    assert decision.actions == tuple(Delete("Job", job.name, job.uid) for job in jobs), "strays are stopped"


def test_a_new_job_gets_its_plan_its_workspace_and_its_first_stage_in_one_pass() -> None:
    decision = decide(observed(), NOW)
    assert [(action.kind, action.name) for action in decision.actions] == [
        ("ConfigMap", names.plan_name("a", "uid-a")),
        ("PersistentVolumeClaim", "a-workspace"),
        ("Job", "a-prepare-1"),
    ]
    assert decision.notes == ()
    assert decision.status.plan is not None
    assert decision.status.plan.gpus == 1


@pytest.mark.parametrize(
    ("runtime", "gpus"),
    [
        ({}, 8),
        ({"deviceClassName": "gpu.nvidia.com"}, 8),
        ({"accelerator": "none"}, 0),
        ({"accelerator": "none", "acceleratorResource": "x.com/gpu"}, 8),
    ],
)
def test_the_gpus_of_a_plan_are_those_of_all_its_nodes(runtime: dict[str, str], gpus: int) -> None:
    spec = job_spec(parallelism={"nodes": 2, "gpusPerNode": 4})
    decision = decide(observed(spec=spec, runtimes={"hf": runtime_spec(**runtime)}), NOW)
    assert decision.status.plan is not None
    assert decision.status.plan.gpus == gpus


@pytest.mark.parametrize(
    ("changes", "reason", "final"),
    [
        ({"spec": job_spec(training={"epochs": 1, "maxSteps": 2})}, reasons.INVALID_SPEC, True),
        ({"spec": {}}, reasons.INVALID_SPEC, True),
        ({"runtimes": {}}, reasons.RUNTIME_MISSING, False),
        ({"runtimes": {"hf": {"image": "x"}}}, reasons.RUNTIME_INVALID, False),
        ({"runtimes": {"hf": runtime_spec(methods=["sft"])}}, reasons.METHOD_NOT_IN_RUNTIME, True),
        ({"runtimes": {"hf": runtime_spec(defaults={})}}, reasons.PLAN_REFUSED, True),
        ({"claims": frozenset()}, reasons.CLAIM_MISSING, False),
    ],
)
def test_what_is_wrong_ends_the_job_and_what_may_come_is_waited_for(
    changes: dict[str, object], reason: str, final: bool
) -> None:
    decision = decide(observed(**changes), NOW)
    assert decision.actions == ()
    assert decision.status.conditions[0].reason == reason
    assert (decision.requeue_after is None) == final
    assert decision.requeue_after in {None, RECHECK_SECONDS}
    assert len(decision.notes) == 1 or reason == reasons.RUNTIME_INVALID


def test_all_that_is_wrong_with_a_spec_is_said_at_once() -> None:
    decision = decide(observed(spec=job_spec(method="LORA", colour=1, training={"maxSteps": 0})), NOW)
    message = decision.status.message or ""
    assert [line.split(":")[0] for line in message.splitlines()] == [
        "spec.method",
        "spec.training.maxSteps",
        "spec.colour",
    ]
    assert "(got 0)" in message


def started(stage: Stage) -> tuple[Frozen, FineTuneJobStatus]:
    frozen = accept(observed())
    assert isinstance(frozen, Frozen)
    status = decide(observed(), NOW).status
    attempt = Attempt(stage=stage, number=1, job=f"a-{stage}-1", started=api_time(NOW), outcome="Running")
    return frozen, status.model_copy(update={"attempts": (attempt,)})


def test_a_pod_that_has_failed_waits_for_the_job_s_word() -> None:
    frozen, status = started(Stage.PREPARE)
    pods = (seen_pod(Stage.PREPARE, phase="Failed"),)
    quiet = decide(observed(status=status, frozen=frozen, jobs=(seen_job(Stage.PREPARE),), pods=pods), NOW)
    assert quiet.status.attempts[0].outcome == "Running"
    job = seen_job(Stage.PREPARE, failed=SeenCondition("BackoffLimitExceeded", ""))
    told = decide(observed(status=status, frozen=frozen, jobs=(job,), pods=pods), NOW)
    assert [attempt.outcome for attempt in told.status.attempts] == ["Failed"]
    assert told.requeue_after == 0, "what follows is decided from what is written down"
    later = decide(observed(status=told.status, frozen=frozen, jobs=(job,), pods=pods), NOW)
    assert [attempt.outcome for attempt in later.status.attempts] == ["Failed", "Running"]


def test_a_pod_of_another_job_s_job_is_not_believed() -> None:
    frozen, status = started(Stage.PREPARE)
    pods = (seen_pod(Stage.PREPARE, phase="Succeeded", owner_uid="somebody"),)
    decision = decide(observed(status=status, frozen=frozen, jobs=(seen_job(Stage.PREPARE),), pods=pods), NOW)
    assert decision.status.attempts[0].outcome == "Running"


def test_what_was_frozen_is_read_back_as_it_was() -> None:
    frozen, _ = started(Stage.PREPARE)
    data = frozen_data(frozen)
    assert read_frozen(data) == frozen
    later = json.loads(data["operator.json"])
    later["tomorrow"] = later["plan"]["resolved"]["tomorrow"] = later["spec"]["training"]["tomorrow"] = 1
    assert read_frozen({**data, "operator.json": json.dumps(later)}) == frozen, "a later version wrote it"
    with pytest.raises(FrozenUnreadableError, match=r"operator\.json"):
        read_frozen({**data, "operator.json": "{}"})
