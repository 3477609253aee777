# SPDX-License-Identifier: Apache-2.0
"""The judge is judged: each invariant finds what breaks it, and an ordinary life breaks none."""

from typing import Any

import pytest
from support.faults.history import Happened, History, wait_until
from support.faults.invariants import (
    ends_that_were_left,
    overlapping_runs,
    repeated_work,
    two_live_attempts,
    untrue_status,
)
from tuneyard_api import names
from tuneyard_local.cluster import Cluster
from tuneyard_local.installation import install_kinds

MINUTE = "2026-01-01T00:{:02d}:00Z"


def child(kind: str, version: int, stage: str = "train", number: int = 1, **more: Any) -> Happened:
    """A Job of FineTuneJob `a`, or its pod."""
    name = names.stage_job_name("a", stage, number)
    uid = more.get("uid", f"{name}-uid")
    owner = {"uid": "a-uid", "name": "a"} if kind == "Job" else {"uid": f"{name}-uid", "name": name}
    labels = {names.LABEL_JOB: "a", names.LABEL_STAGE: stage, names.LABEL_ATTEMPT: str(number)}
    metadata = {"uid": uid if kind == "Job" else f"pod-{uid}", "name": name, "labels": labels}
    body = {"metadata": {**metadata, "resourceVersion": str(version), "ownerReferences": [owner]}}
    return Happened(kind, {**body, "status": more.get("status", {})}, more.get("is_deleted", False))


def pod(version: int, phase: str, number: int = 1, **more: Any) -> Happened:
    return child("Pod", version, number=number, status={"phase": phase}, **more)


def ran(version: int, number: int, began: int, ended: int) -> Happened:
    times = {"startedAt": MINUTE.format(began), "finishedAt": MINUTE.format(ended)}
    status = {"phase": "Failed", "containerStatuses": [{"state": {"terminated": times}}]}
    return child("Pod", version, number=number, status=status)


def job(version: int, *attempts: tuple[str, int, str], state: str = "Training", met: str = "") -> Happened:
    """FineTuneJob `a` with attempts (stage, number, outcome)."""
    said = [
        {"stage": stage, "number": number, "outcome": outcome, "job": "x", "started": MINUTE.format(0)}
        for stage, number, outcome in attempts
    ]
    condition = {"status": "True", "reason": "X", "message": ""}
    condition |= {"lastTransitionTime": MINUTE.format(0), "observedGeneration": 1}
    status = {"state": state, "attempts": said, "conditions": [{"type": met, **condition}] if met else []}
    metadata = {"uid": "a-uid", "name": "a", "resourceVersion": str(version)}
    return Happened("FineTuneJob", {"metadata": metadata, "status": status}, is_deleted=False)


def test_an_ordinary_life_breaks_none() -> None:
    life = [
        child("Job", 1),
        pod(2, "Running"),
        job(3, ("train", 1, "Running")),
        pod(4, "Failed"),
        job(5, ("train", 1, "Failed"), ("train", 2, "Running")),
        child("Job", 6, number=2),
        pod(7, "Running", 2),
        pod(8, "Succeeded", 2),
        job(9, ("train", 1, "Failed"), ("train", 2, "Succeeded"), met="Trained"),
    ]
    assert two_live_attempts(life) == []
    assert repeated_work(life) == []
    assert ends_that_were_left(life) == []
    assert untrue_status(life[-1].body, life) == []
    assert overlapping_runs([ran(1, 1, 0, 5), ran(2, 2, 5, 9)]) == []


@pytest.mark.parametrize("ending", [pod(2, "Running", is_deleted=True), pod(2, "Failed")])
def test_two_live_attempts_are_seen_and_one_after_the_other_is_none(ending: Happened) -> None:
    assert two_live_attempts([pod(1, "Running"), ending, pod(3, "Running", 2)]) == []
    [problem] = two_live_attempts([pod(1, "Running"), pod(3, "Running", 2)])
    assert problem.kind == "overlapping"


def test_attempts_that_ran_at_once_by_their_own_clock_are_seen() -> None:
    [problem] = overlapping_runs([ran(1, 1, 0, 5), ran(2, 2, 4, 9)])
    assert problem.kind == "overlapping"


def test_a_job_made_twice_and_a_stage_done_again_are_seen() -> None:
    twice = [child("Job", 1), child("Job", 2, uid="another")]
    again = [child("Job", 1), job(2, ("train", 1, "Succeeded")), child("Job", 3, number=2)]
    assert [problem.kind for problem in repeated_work(twice)] == ["doubled"]
    assert [problem.kind for problem in repeated_work(again)] == ["doubled"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (job(1, met="Trained"), job(2)),
        (job(1, state="Succeeded"), job(2, state="Training")),
        (job(1, ("train", 1, "Running")), job(2)),
    ],
    ids=["a condition", "an end", "an attempt"],
)
def test_what_was_there_and_is_not_any_more_is_seen(before: Happened, after: Happened) -> None:
    assert {problem.kind for problem in ends_that_were_left([before, after])} == {"lost"}


@pytest.mark.parametrize(
    ("said", "made"),
    [
        (job(9, ("train", 1, "Running")), []),
        (job(9), [child("Job", 1)]),
        (job(9, ("train", 1, "Running"), state="Failed"), [child("Job", 1)]),
        (job(9, ("train", 1, "Succeeded"), state="Succeeded"), [child("Job", 1)]),
    ],
    ids=[
        "an attempt that was not made",
        "one that is not known",
        "one that runs after the end",
        "stages left out",
    ],
)
def test_a_status_that_is_not_true_is_seen(said: Happened, made: list[Happened]) -> None:
    assert {problem.kind for problem in untrue_status(said.body, made)} == {"untrue"}


@pytest.mark.cluster
def test_what_leaves_while_history_catches_up_is_not_waited_for(
    control_plane: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The objects of the previous test do the same, because their namespace is still being emptied."""
    metadata = {"name": "leaves", "namespace": namespace, "labels": {names.LABEL_JOB: "a"}}
    spec = {"containers": [{"name": "c", "image": "none:1"}]}
    install_kinds(control_plane)
    with History(control_plane) as history:
        control_plane.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        wait_until("it to be known", lambda: history.present("Pod"))
        ask = history.api.items

        def listed_and_gone(path: str) -> list[dict[str, Any]]:
            items = ask(path)
            if items:
                control_plane.kubectl("delete", "pod", "leaves", "-n", namespace, "--force")
                wait_until("it to be gone", lambda: not history.present("Pod"))
            return items

        monkeypatch.setattr(history.api, "items", listed_and_gone)
        history.catch_up(30)
