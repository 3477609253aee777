# SPDX-License-Identifier: Apache-2.0
"""Where the time of a job went: status.ledger against the time that a scripted life really took."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.samples import job_spec, result_text
from support.world.queue import let_go, take_place
from support.world.world import World
from tuneyard_api.ledger import LedgerSeconds, LedgerStatus, Part, PhaseTimes
from tuneyard_api.pod_contract import Progress, Stage
from tuneyard_operator.domain.conditions import api_time
from tuneyard_operator.domain.ledger import by_phases

OF_PHASE = {"loading": Part.LOADING, "compiling": Part.COMPILING, "training": Part.TRAINING}
OF_PHASE |= {"checkpointing": Part.CHECKPOINTING, "evaluating": Part.EVALUATING}


def ledger_of(world: World) -> LedgerStatus:
    ledger = world.status.ledger
    assert ledger is not None
    return ledger


def there(seconds: LedgerSeconds) -> dict[Part, int]:
    return {part: count for part, count in seconds.by_part().items() if count}


@dataclass
class Life:
    """A job whose every second is known: `truth` is what happened, in seconds by part."""

    world: World = field(default_factory=World)
    truth: Counter[Part] = field(default_factory=Counter)
    step: int = 0

    def __post_init__(self) -> None:
        self.world.settle()

    def spend(self, part: Part, seconds: int) -> None:
        self.world.advance(seconds)
        self.truth[part] += seconds

    def place(self, pod: str, waits: int, pulls: int) -> None:
        """The pod waits for a node, then for its image, then its container starts."""
        self.spend(Part.QUEUED, waits)
        placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": api_time(self.world.moment)}
        self.world.set_pod(pod, conditions=[placed])
        self.spend(Part.PULLING, pulls)
        state = {"name": "trainer", "state": {"running": {"startedAt": api_time(self.world.moment)}}}
        self.world.set_pod(pod, phase="Running", podIP="10.0.0.9", containerStatuses=[state])
        self.world.settle()

    def carry_out(self, stage: Stage, part: Part, waits: int, pulls: int, runs: int) -> None:
        pod = self.world.make_pod(f"a-{stage}-1")
        self.place(pod, waits, pulls)
        self.spend(part, runs)
        self.world.carry_out_pod(pod, stage)

    def run(self, phases: list[tuple[str, int]], times: Counter[str]) -> float:
        """The trainer goes through its phases, and is read at the end of each; returns what is not saved."""
        unsaved = 0.0
        for phase, seconds in phases:
            self.spend(OF_PHASE[phase], seconds)
            times[phase] += seconds
            unsaved = 0.0 if phase == "checkpointing" else unsaved + (seconds if phase == "training" else 0)
            self.step += 1
            self.world.progress.answer = Progress(
                stage=Stage.TRAIN,
                phase="training",
                step=self.step,
                of=1000,
                times=PhaseTimes(seconds=dict(times), unsaved_seconds=unsaved),
            )
            self.world.one_pass()
        return unsaved


def ended(times: Counter[str], unsaved: float) -> dict[str, Any]:
    return {"times": {"seconds": dict(times), "unsavedSeconds": unsaved}}


def told_to_stop(life: Life, times: Counter[str], unsaved: float) -> str:
    return result_text(
        Stage.TRAIN, life.world.digest, outcome="Failed", facts={},
        failure={"failureClass": "Interrupted", "message": "stopped"}, **ended(times, unsaved),
    )  # fmt: skip


LENGTHS = st.integers(0, 4000)
RUNS = st.lists(st.tuples(st.sampled_from(sorted(OF_PHASE)), st.integers(10, 4000)), max_size=6)
ENDS = st.sampled_from(["killed", "killed later", "told to stop", "failed"])
ATTEMPTS = st.lists(st.tuples(LENGTHS, LENGTHS, RUNS, ENDS, st.booleans()), max_size=3)


@settings(max_examples=40, deadline=None)
@given(ATTEMPTS, RUNS, st.tuples(LENGTHS, LENGTHS, LENGTHS), LENGTHS)
def test_the_parts_are_what_really_happened(
    attempts: list[tuple[int, int, list[tuple[str, int]], str, bool]],
    last: list[tuple[str, int]],
    other: tuple[int, int, int],
    endpoint: int,
) -> None:
    """Whatever fails and however often, whether or not the operator is killed: part by part, to the second."""
    life = Life()
    answers, life.world.servers.replicas = life.world.servers.replicas, ()
    life.carry_out(Stage.PREPARE, Part.PREPARING, *other)
    for number, (waits, pulls, phases, end, is_restarted) in enumerate(attempts, start=1):
        pod, times = life.world.make_pod(f"a-train-{number}"), Counter[str]()
        life.place(pod, waits, pulls)
        unsaved = life.run(phases, times)
        if end == "killed later":
            life.spend(Part.LOST, 7)
        if end == "told to stop":
            life.spend(Part.CHECKPOINTING, 5)
            times["checkpointing"] += 5
            unsaved = 0.0
        if end == "failed":
            life.spend(Part.TRAINING, 3)
            times["training"] += 3
            unsaved += 3
        life.truth[Part.LOST] += int(unsaved)
        life.truth[Part.TRAINING] -= int(unsaved)
        said = ""
        if not end.startswith("killed"):
            said = told_to_stop(life, times, unsaved)
        if is_restarted:
            life.world.start_operator()
        life.world.end_pod(pod, exit_code=143, reason="Error", message=said)
        life.world.fail_job(f"a-train-{number}")
        life.world.progress.answer = None
        life.world.settle()
        while f"a-train-{number + 1}" not in life.world.jobs():
            assert life.world.status.state != "Failed", life.world.status.message
            life.spend(Part.LOST, 60)
            life.world.one_pass()
            life.world.settle()
    pod, times = life.world.make_pod(f"a-train-{len(attempts) + 1}"), Counter[str]()
    life.place(pod, 5, 5)
    life.run(last, times)
    life.world.end_pod(pod, message=result_text(Stage.TRAIN, life.world.digest, **ended(times, 0.0)))
    life.world.settle()
    life.carry_out(Stage.PUBLISH, Part.PUBLISHING, *other)
    life.spend(Part.WAITING_FOR_ENDPOINT, endpoint)
    life.world.servers.replicas = answers
    life.world.one_pass()
    life.world.settle()
    ledger = ledger_of(life.world)
    assert life.world.status.state == "Succeeded"
    assert there(ledger.seconds) == {part: count for part, count in life.truth.items() if count}
    assert ledger.until == life.world.status.ended
    assert (ledger.run, ledger.unsaved_seconds) == (None, None)


@given(
    st.integers(0, 100_000),
    st.dictionaries(st.sampled_from([*OF_PHASE, "done", "a newer phase"]), st.floats(-10, 200_000)),
)
def test_a_run_is_divided_without_a_rest(total: int, seconds: dict[str, float]) -> None:
    parts = by_phases(total, seconds)
    assert sum(parts.values()) == total
    assert min(parts.values()) >= 0
    spent = sum(max(0.0, each) for each in seconds.values())
    if spent <= total:
        for phase in OF_PHASE.keys() & seconds.keys() - {"loading"}:
            assert abs(parts[OF_PHASE[phase]] - max(0.0, seconds[phase])) <= 1


def test_many_short_checkpoints_add_up_over_many_writes() -> None:
    """Each lasts less than a second: were every span rounded by itself, none would ever be counted."""
    life, times = Life(), Counter[str]()
    life.carry_out(Stage.PREPARE, Part.PREPARING, 0, 0, 0)
    life.place(life.world.make_pod("a-train-1"), 0, 0)
    for step in range(1, 31):
        life.world.advance(10)
        times["training"], times["checkpointing"] = step * 9.6, step * 0.4  # type: ignore[assignment]
        life.world.progress.answer = Progress(
            stage=Stage.TRAIN, phase="training", step=step, of=50, times=PhaseTimes(seconds=dict(times))
        )
        life.world.one_pass()
    assert there(ledger_of(life.world).seconds) == {Part.TRAINING: 288, Part.CHECKPOINTING: 12}


def test_gpus_are_held_from_the_node_to_the_end_of_the_pod() -> None:
    life = Life()
    life.carry_out(Stage.PREPARE, Part.PREPARING, 10, 10, 500)
    assert ledger_of(life.world).gpu_seconds == 0
    pod = life.world.make_pod("a-train-1")
    life.place(pod, 300, 40)
    life.run([("loading", 20), ("training", 100)], Counter())
    assert ledger_of(life.world).gpu_seconds == 160
    life.spend(Part.TRAINING, 15)
    life.world.carry_out_pod(pod, Stage.TRAIN)
    life.world.advance(50)
    life.carry_out(Stage.PUBLISH, Part.PUBLISHING, 10, 10, 60)
    assert ledger_of(life.world).gpu_seconds == 175
    assert ledger_of(life.world).goodput_percent == round(100 * 115 / (175 + 20))


def test_suspended_time_is_no_waiting() -> None:
    life, times = Life(), Counter[str]()
    life.carry_out(Stage.PREPARE, Part.PREPARING, 0, 0, 30)
    pod = life.world.make_pod("a-train-1")
    life.place(pod, 0, 0)
    life.run([("training", 100)], times)
    life.world.edit(suspend=True)
    life.world.settle()
    life.spend(Part.CHECKPOINTING, 4)
    times["checkpointing"] += 4
    life.world.end_pod(pod, exit_code=143, message=told_to_stop(life, times, 0))
    life.world.settle()
    life.world.collect_garbage()
    life.world.settle()
    assert life.world.status.state == "Suspended"
    life.spend(Part.SUSPENDED, 5000)
    life.world.edit(suspend=False)
    life.world.settle()
    assert there(ledger_of(life.world).seconds) == {
        part: count for part, count in life.truth.items() if count
    }


@pytest.mark.parametrize("unsaved", [0, 25, None])
def test_a_place_that_is_taken_away_is_waited_for_and_what_was_not_saved_is_lost(unsaved: int | None) -> None:
    """Its pods are told to stop: they say what they have saved, or are killed before they can (None)."""
    life, times = Life(World(spec=job_spec(scheduling={"queue": "gpus"}))), Counter[str]()
    life.carry_out(Stage.PREPARE, Part.PREPARING, 0, 0, 30)
    let_go(life.world, "a-train-1")
    life.world.settle()
    pod = life.world.make_pod("a-train-1")
    life.place(pod, 0, 0)
    life.run([("training", 100)], times)
    take_place(life.world, "a-train-1")
    life.world.settle()
    life.spend(Part.CHECKPOINTING, 4)
    times["checkpointing"] += 4
    said = told_to_stop(life, times, unsaved) if unsaved is not None else ""
    life.world.end_pod(pod, exit_code=143, message=said)
    life.world.settle()
    life.world.collect_garbage()
    life.spend(Part.QUEUED, 5000)
    life.world.settle()
    let_go(life.world, "a-train-1")
    life.world.settle()
    life.place(life.world.make_pod("a-train-1", "y"), 7, 8)
    life.run([("loading", 20), ("training", 60)], Counter())
    lost = {None: Counter({Part.TRAINING: 100, Part.CHECKPOINTING: 4}), 0: Counter[Part]()}
    taken = lost.get(unsaved, Counter({Part.TRAINING: 25}))
    truth = life.truth - taken + Counter({Part.LOST: taken.total()})
    assert there(ledger_of(life.world).seconds) == dict(truth)
    assert life.world.status.attempts[-1].number == 1


def test_a_clock_that_jumps_back_counts_nothing_twice() -> None:
    life = Life()
    life.carry_out(Stage.PREPARE, Part.PREPARING, 0, 0, 30)
    until = ledger_of(life.world).until
    life.world.advance(-20)
    life.world.run_pod(life.world.make_pod("a-train-1"))
    life.world.settle()
    ledger = ledger_of(life.world)
    assert ledger.until == until
    assert sum(ledger.seconds.by_part().values()) == 30


def test_a_pod_that_vanishes_takes_what_it_had_not_saved() -> None:
    life = Life()
    life.carry_out(Stage.PREPARE, Part.PREPARING, 0, 0, 30)
    pod = life.world.make_pod("a-train-1")
    life.place(pod, 0, 0)
    life.run([("training", 100), ("checkpointing", 10), ("training", 50)], Counter())
    life.world.advance(8)
    life.world.cluster.remove("Pod", pod)
    life.world.fail_job("a-train-1")
    life.world.settle()
    expected = {Part.PREPARING: 30, Part.TRAINING: 100, Part.CHECKPOINTING: 10, Part.LOST: 58}
    assert there(ledger_of(life.world).seconds) == expected
    assert ledger_of(life.world).gpu_seconds == 168


def test_an_image_that_measures_nothing_has_trained_all_the_time() -> None:
    life = Life()
    life.carry_out(Stage.PREPARE, Part.PREPARING, 0, 0, 30)
    pod = life.world.make_pod("a-train-1")
    life.place(pod, 0, 0)
    life.world.advance(70)
    life.world.carry_out_pod(pod, Stage.TRAIN)
    assert there(ledger_of(life.world).seconds) == {Part.PREPARING: 30, Part.TRAINING: 70}


def test_a_job_that_was_started_before_there_were_ledgers_is_counted_from_now_on() -> None:
    life = Life()
    life.carry_out(Stage.PREPARE, Part.PREPARING, 0, 0, 30)
    body = life.world.cluster.objects["FineTuneJob", "team", "a"]
    del body["status"]["ledger"]
    life.world.cluster.store("FineTuneJob", body)
    life.world.start_operator()
    life.world.advance(1000)
    life.place(life.world.make_pod("a-train-1"), 0, 0)
    life.run([("training", 60)], Counter())
    assert there(ledger_of(life.world).seconds) == {Part.TRAINING: 60}


def test_time_alone_is_no_reason_to_write() -> None:
    life = Life()
    life.carry_out(Stage.PREPARE, Part.PREPARING, 0, 0, 30)
    writes = life.world.cluster.calls.count("patch status")
    for _ in range(5):
        life.world.advance(100)
        life.world.one_pass()
    after = life.world.cluster.calls.count("patch status")
    assert after <= writes + 1
