# SPDX-License-Identifier: Apache-2.0
"""Any sequence of faults, edits and deletions, one step after another: what must never happen does not, and the job ends.

The normal suite walks a short way; `make survive` walks 50,000 steps and prints what it walked.
"""

import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from rough_world import RoughWorld
from tuneyard_api.pod_contract import Stage
from tuneyard_operator.domain import stages
from tuneyard_operator.domain.observed import Observed, SeenJob, SeenPod
from tuneyard_operator.ports import RefusedError
from tuneyard_operator.reconcile.gather import Gatherer

STEPS = int(os.environ.get("TUNEYARD_SURVIVE_STEPS", "1500"))
STEPS_OF_A_LIFE = 50
WALKED: Counter[str] = Counter()
OUTCOMES = ["succeed", "succeed", "succeed", "oom", "Interrupted", "UpstreamUnavailable", "NonFiniteLoss"]
RETRIES = st.fixed_dictionaries(
    {"maxAttempts": st.integers(1, 4), "maxInterruptions": st.sampled_from([0, 2, 50])}
)
DEADLINES = st.sampled_from([{}, {}, {"activeSeconds": 900}, {"pendingSeconds": 600}])
TTLS = st.sampled_from([{}, {"afterSuccessSeconds": 0, "afterFailureSeconds": 0}])
SPECS = st.fixed_dictionaries(
    {"retry": RETRIES, "deadlines": DEADLINES, "ttl": TTLS},
    optional={
        "training": st.just({"globalBatchSize": 8, "microBatchSize": 4}),
        "deletionPolicy": st.just("Delete"),
    },
)


class Survival(RuleBasedStateMachine):
    """One FineTuneJob in a rough world; every creation and every status that is written goes before the judge."""

    @initialize(spec=SPECS, ahead=st.integers(0, 11))
    def begin(self, spec: dict[str, Any], ahead: int) -> None:
        """A new job, or one that has come some way: trouble should find it at every place."""
        self.world = RoughWorld(**spec)
        for _ in range(ahead):
            self.world.settle()
            self.world.turn()

    @rule()
    def operator_passes(self) -> None:
        self._walk("pass")
        self.world.try_pass()

    @rule()
    def operator_works_until_nothing_is_due(self) -> None:
        self._walk("settle")
        self.world.settle()

    @rule(outcome=st.sampled_from(OUTCOMES))
    def a_controller_or_kubelet_moves(self, outcome: str) -> None:
        self._walk(f"turn {outcome}")
        self.world.turn(outcome)

    @rule(outcome=st.sampled_from(OUTCOMES), turns=st.integers(1, 5))
    def everything_moves_on(self, outcome: str, turns: int) -> None:
        self._walk("moves on")
        for _ in range(turns):
            self.world.settle()
            self.world.turn(outcome)

    @rule(seconds=st.sampled_from([1, 11, 301]))
    def time_passes_and_is_used(self, seconds: int) -> None:
        self._walk("wait and settle")
        self.world.advance(seconds)
        self.world.try_pass()
        self.world.settle()

    @rule(calls=st.integers(0, 6))
    def operator_is_killed(self, calls: int) -> None:
        self._walk("crash")
        self.world.crash(calls)

    @rule(calls=st.integers(0, 4))
    def an_answer_is_lost(self, calls: int) -> None:
        self._walk("lost answer")
        self.world.silence(calls)

    @rule()
    def api_server_is_away(self) -> None:
        self._walk("API server down")
        self.world.cluster.down = True
        self.world.try_pass()
        self.world.cluster.down = False

    @rule(cause=st.sampled_from(["Forbidden"]))
    def a_job_is_refused(self, cause: str) -> None:
        self._walk("refusal")
        self.world.cluster.refuse["Job"] = RefusedError(cause, "exceeded quota: few")  # type: ignore[arg-type]
        self.world.try_pass()
        self.world.cluster.refuse.clear()

    @rule(count=st.integers(1, 4))
    def events_arrive(self, count: int) -> None:
        self._walk("deliver")
        rest = self.world.told[count:]
        self.world.told = self.world.told[:count]
        self.world.deliver()
        self.world.told = rest

    @rule(how=st.sampled_from(["lose", "duplicate", "reverse", "shuffle"]), seed=st.integers(0, 9))
    def events_are_not_what_they_should_be(self, how: str, seed: int) -> None:
        self._walk(how)
        told = self.world.told
        if how == "lose" and told:
            told.pop(seed % len(told))
        elif how == "duplicate":
            told.extend(told[: seed + 1])
        elif how == "reverse":
            told.reverse()
        else:
            random.Random(seed).shuffle(told)

    @rule()
    def lists_are_compared(self) -> None:
        self._walk("resync")
        self.world.compare()

    @rule(seconds=st.sampled_from([1, 11, 40, 400, -3600, -20, 7200]))
    def time_passes_or_jumps(self, seconds: int) -> None:
        self._walk("clock jump" if seconds < 0 or seconds > 400 else "wait")
        self.world.advance(seconds)

    @precondition(lambda self: self.world.running_pods())
    @rule(how=st.sampled_from(["evicted", "node lost", "killed"]))
    def a_running_pod_is_hit(self, how: str) -> None:
        self._walk(how)
        pod = self.world.running_pods()[0]
        if how == "node lost":
            self.world.lose_node(pod)
        elif how == "evicted":
            self.world.delete("Pod", pod)
        elif pod not in self.world.lost:
            self.world.end_pod(pod, exit_code=137, reason="Error")

    @precondition(lambda self: self.world.lost)
    @rule()
    def lost_nodes_come_back(self) -> None:
        self._walk("node back")
        self.world.lost.clear()

    @precondition(lambda self: any("train" in pod for pod in self.world.running_pods()))
    @rule()
    def the_training_hangs(self) -> None:
        self._walk("hang")
        self.world.stand_still()
        for _ in range(14):
            self.world.advance(11)
            self.world.try_pass()
        self.world.progress.answer = None

    @precondition(lambda self: self.world.job)
    @rule(is_suspended=st.booleans())
    def somebody_suspends_or_resumes(self, is_suspended: bool) -> None:
        self._walk("suspend" if is_suspended else "resume")
        self.world.edit(suspend=is_suspended)

    @precondition(lambda self: self.world.job)
    @rule(retry=RETRIES, deadlines=DEADLINES, ttl=TTLS)
    def somebody_edits_what_may_change(self, **fields: Any) -> None:
        self._walk("edit")
        self.world.edit(**fields)

    @precondition(lambda self: self.world.job)
    @rule(is_background=st.booleans())
    def somebody_deletes_a_stage_s_job(self, is_background: bool) -> None:
        self._walk("child deleted")
        jobs = self.world.jobs()
        if jobs and is_background:
            self.world.cluster.remove("Job", jobs[-1])
            self.world.collect_garbage()
        elif jobs:
            self.world.delete("Job", jobs[-1])

    @precondition(lambda self: self.world.job)
    @rule()
    def somebody_deletes_the_job(self) -> None:
        self._walk("deleted")
        self.world.delete_job()

    @precondition(lambda self: not self.world.job)
    @rule(spec=SPECS)
    def somebody_applies_it_again(self, spec: dict[str, Any]) -> None:
        self._walk("applied again")
        self.world.apply_job(**spec)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.come_to_rest()
            WALKED["lives"] += 1
            WALKED[f"ended as {self.world.status.state if self.world.job else 'deleted'}"] += 1

    @staticmethod
    def _walk(what: str) -> None:
        WALKED[what] += 1
        WALKED["steps"] += 1


def walk(examples: int, *, derandomize: bool = False, shrinks: bool = True) -> None:
    phases = [Phase.generate, *([Phase.shrink] if shrinks else [])]
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Survival,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS_OF_A_LIFE,
            deadline=None,
            database=None,
            derandomize=derandomize,
            phases=phases,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_job_survives_every_sequence_of_faults(capsys: pytest.CaptureFixture[str]) -> None:
    WALKED.clear()
    while WALKED["steps"] < STEPS:
        walk(max(20, min(500, (STEPS - WALKED["steps"]) // STEPS_OF_A_LIFE)))
    with capsys.disabled():
        if "TUNEYARD_SURVIVE_STEPS" in os.environ:
            print(f"\n{WALKED['steps']} steps in {WALKED['lives']} lives without a violation")
            for what, count in WALKED.most_common():
                print(f"{count:8} {what}")


def forget_former_pods(patch: pytest.MonkeyPatch) -> None:
    """Starts the next attempt without looking whether the last one still writes."""
    patch.setattr(stages, "_again", _without_pods(stages._again))


def _without_pods(real: Callable[..., Any]) -> Callable[..., Any]:
    def again(work: stages.Work, stage: Stage, attempt: Any) -> Any:
        kept = tuple(pod for pod in work.seen.pods if (pod.stage, pod.attempt) != (stage, attempt.number))
        work.seen = replace(work.seen, pods=kept)
        return real(work, stage, attempt)

    return again


def ignore_the_attempt(patch: pytest.MonkeyPatch) -> None:
    """Takes any attempt's Job for the one that is asked for."""

    def job_of(self: Observed, stage: Stage, _: int) -> SeenJob | None:
        return next((job for job in self.jobs if (job.stage, job.owner_uid) == (stage, self.uid)), None)

    patch.setattr(Observed, "job_of", job_of)


def ignore_the_owner(patch: pytest.MonkeyPatch) -> None:
    """Believes in pods and Jobs of an older FineTuneJob of the same name."""

    def job_of(self: Observed, stage: Stage, attempt: int) -> SeenJob | None:
        return next((job for job in self.jobs if (job.stage, job.attempt) == (stage, attempt)), None)

    patch.setattr(Observed, "job_of", job_of)
    patch.setattr("tuneyard_operator.reconcile.apply._conflict", lambda *_: None)


def trust_the_watch(patch: pytest.MonkeyPatch) -> None:
    """Does not ask afresh what is left of the attempt before."""

    async def pods(_: Gatherer, __: Any, ___: str, pods: tuple[SeenPod, ...]) -> tuple[SeenPod, ...]:
        return pods

    patch.setattr(Gatherer, "_with_former_pods", pods)


def leave_an_end(patch: pytest.MonkeyPatch) -> None:
    """Looks at a job that has ended as at any other."""
    patch.setattr("tuneyard_operator.domain.decide.is_terminal", lambda _: False)


@pytest.mark.parametrize(
    "plant", [forget_former_pods, ignore_the_attempt, ignore_the_owner, trust_the_watch, leave_an_end]
)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        walk(400, derandomize=True, shrinks=False)
