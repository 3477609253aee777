# SPDX-License-Identifier: Apache-2.0
"""What `make demo-pipeline` says about a workflow: each stage's phase once, and who is waited for."""

from typing import Any

from tuneyard_local.demo.follow import WorkflowFollower, waiting_approval
from tuneyard_workflows.checks import NOTHING

Json = dict[str, Any]


def node(name: str, kind: str, phase: str, second: int, **more: str) -> Json:
    return {
        "id": name,
        "displayName": name,
        "type": kind,
        "phase": phase,
        "startedAt": f"2026-11-29T12:00:{second:02}Z",
        **more,
    }


def status(*nodes: Json) -> Json:
    return {"nodes": {each["id"]: each for each in nodes}}


def test_a_stage_is_told_once_for_each_phase_in_the_order_of_their_starts() -> None:
    follower = WorkflowFollower()
    first = status(
        node("job", "Retry", "Running", 9),
        node("curate", "Retry", "Succeeded", 3),
        node("curate(0)", "Pod", "Succeeded", 3),
        node(NOTHING, "Suspend", "Succeeded", 1),
    )
    assert follower.news(first) == ["curate     succeeded", "job        running"]
    assert follower.news(first) == []
    failed = node("job", "Retry", "Failed", 9, message="BadInput: no records")
    assert follower.news(status(failed)) == ["job        failed BadInput: no records"]
    assert follower.news({}) == []


def test_only_a_running_suspension_waits_for_a_person() -> None:
    assert waiting_approval(status(node("approve", "Suspend", "Running", 1))) == "approve"
    assert waiting_approval(status(node("approve", "Suspend", "Succeeded", 1))) is None
    assert waiting_approval(status(node("job", "Retry", "Running", 1))) is None
