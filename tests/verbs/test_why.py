# SPDX-License-Identifier: Apache-2.0
"""What `why` says of each state that a job can be in, and of an operator that says nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tuneyard.client.job import Job
from tuneyard.client.why import _ADVICE, explain
from tuneyard_api import reasons
from tuneyard_api.reasons import REASONS

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
EARLIER = "2026-01-01T11:00:00Z"


def job(generation: int = 1, **status: Any) -> Job:
    metadata = {
        "name": "a",
        "namespace": "team",
        "uid": "u",
        "creationTimestamp": EARLIER,
        "generation": generation,
    }
    return Job.of({"metadata": metadata, "spec": {}, "status": status})


def unmet(kind: str, reason: str, message: str, status: str = "False") -> dict[str, Any]:
    return {
        "type": kind, "status": status, "reason": reason, "message": message,
        "observedGeneration": 1, "lastTransitionTime": EARLIER,
    }  # fmt: skip


def waits(reason: str, kind: str = "Pod", name: str = "a-train-1-x") -> dict[str, Any]:
    return {
        "state": "Waiting",
        "message": f"waits for {kind} {name}: words.",
        "conditions": [unmet("Scheduled", reason, "words")],
        "waitingFor": {"kind": kind, "name": name, "reason": reason, "message": "words"},
    }


@pytest.mark.parametrize("reason", sorted(reasons.WAITING))
def test_every_reason_to_wait_has_an_advice(reason: str) -> None:
    answer = explain(job(**waits(reason)), [], [], None, NOW)
    assert answer.sentence == "it waits for Pod a-train-1-x: words, for 1h00m now"
    assert answer.advice
    assert "{" not in answer.advice


def test_no_advice_is_for_a_reason_that_there_is_not() -> None:
    assert _ADVICE.keys() <= REASONS.keys()


def test_a_job_that_nobody_has_looked_at_names_the_operator() -> None:
    answer = explain(job(), [], [], None, NOW)
    assert answer.sentence == "no operator has looked at it in the 1h00m since it was created"
    assert "tuneyard-operator" in answer.advice
    fresh = explain(job(), [], [], None, NOW - timedelta(minutes=59, seconds=55))
    assert fresh.sentence == "it is pending: it has just begun"


def test_a_change_that_the_operator_has_not_seen_is_said() -> None:
    status = {
        "state": "Training",
        "observedGeneration": 1,
        "conditions": [unmet("Trained", "Training", "trains")],
    }
    assert (
        "has not seen the latest change of its spec (generation 2, seen 1)"
        in explain(job(generation=2, **status), [], [], None, NOW).sentence
    )


def test_pods_that_ended_unnoticed_are_said() -> None:
    attempt = {"stage": "train", "number": 1, "job": "a-train-1", "started": EARLIER, "outcome": "Running"}
    status = {
        "state": "Training",
        "attempts": [attempt],
        "conditions": [unmet("Trained", "Training", "trains")],
    }
    state = {"terminated": {"finishedAt": "2026-01-01T11:50:00Z"}}
    metadata = {"name": "a-train-1-x", "ownerReferences": [{"name": "a-train-1"}]}
    pod = {"metadata": metadata, "status": {"phase": "Failed", "containerStatuses": [{"state": state}]}}
    answer = explain(job(**status), [pod], [], None, NOW)
    assert answer.sentence == "the pods of a-train-1 ended 10m00s ago, and no operator has taken note of it"


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("BadInput", "a corrected job under another name"),
        ("AdapterNotServed", "who runs the service"),
        ("Bug", "kubectl tuneyard logs a"),
        ("OfANewerOperator", "kubectl tuneyard logs a"),
    ],
)
def test_a_failure_says_who_can_fix_it(reason: str, advice: str) -> None:
    status = {"state": "Failed", "conditions": [unmet("Succeeded", reason, "what happened")]}
    answer = explain(job(**status), [], [], None, NOW)
    assert answer.sentence == f"it has failed ({reason}): what happened"
    assert answer.advice.startswith(advice)


def test_a_suspended_job_says_how_to_go_on() -> None:
    status = {"state": "Suspended", "conditions": [unmet("Suspended", "Suspended", "held", "True")]}
    answer = explain(job(**status), [], [], None, NOW)
    assert (answer.sentence, answer.advice) == (
        "it is suspended: spec.suspend is true",
        "kubectl tuneyard resume a",
    )


def test_a_queued_job_has_the_words_of_kueue_and_only_the_newest_warnings_about_it() -> None:
    status = {**waits(reasons.QUEUED, "Workload", "job-a"), "state": "Queued"}
    said = {"type": "QuotaReserved", "status": "False", "message": "insufficient quota for nvidia.com/gpu"}
    workload = {
        "metadata": {"name": "job-a"},
        "spec": {"queueName": "gpus"},
        "status": {"conditions": [said]},
    }
    events = [
        {
            "type": "Warning", "reason": f"R{number}", "message": "m", "metadata": {},
            "lastTimestamp": f"2026-01-01T11:0{number}:00Z",
            "involvedObject": {"kind": "FineTuneJob", "name": "a" if number < 5 else "other"},
        }
        for number in range(6)
    ]  # fmt: skip
    answer = explain(job(**status), [], events, workload, NOW)
    assert answer.evidence == (
        "Workload job-a in LocalQueue gpus: insufficient quota for nvidia.com/gpu",
        "FineTuneJob a: R4: m",
        "FineTuneJob a: R3: m",
        "FineTuneJob a: R2: m",
    )
