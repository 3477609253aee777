# SPDX-License-Identifier: Apache-2.0
"""One FineTuneJob in a rough world, as a state machine: any sequence of faults, edits and deletions, a step at a time.

Every creation, deletion and status goes before the judge; at the end of a life all trouble is over, and the job ends.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tuneyard_operator.ports import RefusedError

from support.world.deletion import UNPUBLISH
from support.world.rough import RoughWorld
from support.world.sudden import delete_as_it_succeeds, pod_at_work

STEPS_OF_A_LIFE = 50
WALKED: Counter[str] = Counter()
OUTCOME = st.sampled_from(
    ["succeed", "succeed", "succeed", "oom", "Interrupted", "UpstreamUnavailable", "NonFiniteLoss"]
)
RETRIES = st.fixed_dictionaries(
    {"maxAttempts": st.integers(1, 4), "maxInterruptions": st.sampled_from([0, 2, 50])}
)
DEADLINES = st.sampled_from([{}, {}, {"activeSeconds": 900}, {"pendingSeconds": 600}])
TTLS = st.sampled_from([{}, {"afterSuccessSeconds": 0, "afterFailureSeconds": 0}])
POLICIES = st.sampled_from(["Retain", "Delete", "Delete"])
SPECS = st.fixed_dictionaries(
    {"retry": RETRIES, "deadlines": DEADLINES, "ttl": TTLS, "deletionPolicy": POLICIES},
    optional={
        "training": st.just({"globalBatchSize": 8, "microBatchSize": 4}),
        "scheduling": st.just({"queue": "gpus"}),
    },
)
CHOICE = st.integers(0, 5)
HAPPENINGS = [
    "events",
    "a move",
    "a place taken away",
    "garbage",
    "suspend",
    "resume",
    "child deleted",
    "job deleted",
    "job deleted in the foreground",
    "finalizers taken off",
    "applied again",
    "labelled",
]


class Survival(RuleBasedStateMachine):
    """The rules; `world` is what they are done to."""

    world: RoughWorld

    @initialize(spec=SPECS, ahead=st.integers(0, 14))
    def begin(self, spec: dict[str, Any], ahead: int) -> None:
        """A new job, or one that has come some way: trouble should find it at every place."""
        self.world = RoughWorld(**spec)
        for _ in range(ahead):
            self.world.settle()
            self.world.turn()

    # The operator

    @rule()
    def operator_passes(self) -> None:
        _walked("pass")
        self.world.try_pass()

    @rule()
    def operator_works_until_nothing_is_due(self) -> None:
        _walked("settle")
        self.world.settle()

    @rule(calls=st.integers(0, 6))
    def operator_is_killed(self, calls: int) -> None:
        _walked("crash")
        self.world.crash(calls)

    @rule(count=st.integers(1, 4))
    def events_arrive(self, count: int) -> None:
        _walked("deliver")
        self._deliver(count)

    @rule(
        how=st.sampled_from(["lose", "lose Pod", "lose Job", "duplicate", "reverse", "shuffle"]),
        choice=CHOICE,
    )
    def events_are_not_what_they_should_be(self, how: str, choice: int) -> None:
        _walked(how)
        told = self.world.told
        if how == "lose":
            del told[choice : choice + 1]
        elif how.startswith("lose "):
            told[:] = [event for event in told if event[0] != how.removeprefix("lose ")]
        elif how == "duplicate":
            told.extend(told[: choice + 1])
        elif how == "reverse":
            told.reverse()
        else:
            random.Random(choice).shuffle(told)

    @rule()
    def lists_are_compared(self) -> None:
        _walked("resync")
        self.world.compare()

    # The API server

    @rule(calls=st.integers(0, 4))
    def an_answer_is_lost(self, calls: int) -> None:
        _walked("lost answer")
        self.world.silence(calls)

    @rule()
    def api_server_is_away(self) -> None:
        _walked("API server down")
        self.world.cluster.down = True
        self.world.try_pass()
        self.world.cluster.down = False

    @rule(kind=st.sampled_from(["Job", "ConfigMap", "PersistentVolumeClaim"]))
    def an_object_is_refused(self, kind: str) -> None:
        _walked("refusal")
        self.world.cluster.refuse[kind] = RefusedError("Forbidden", "exceeded quota: few")
        self.world.try_pass()
        self.world.cluster.refuse.clear()

    @rule(calls=st.integers(0, 6), what=st.sampled_from(HAPPENINGS), outcome=OUTCOME, choice=CHOICE)
    def something_happens_during_a_pass(self, calls: int, what: str, outcome: str, choice: int) -> None:
        _walked(f"meanwhile {what}")
        happens = partial(self._happens, what, outcome, choice)
        self.world.interrupt(calls, happens, self.world.try_pass)

    @rule(calls=st.integers(0, 3), what=st.sampled_from(HAPPENINGS), outcome=OUTCOME, choice=CHOICE)
    def something_happens_while_lists_are_compared(
        self, calls: int, what: str, outcome: str, choice: int
    ) -> None:
        _walked(f"during a resync {what}")
        self.world.interrupt(calls, partial(self._happens, what, outcome, choice), self.world.compare)

    # Controllers, kubelets, nodes, time

    @rule(outcome=OUTCOME, choice=CHOICE)
    def a_controller_or_kubelet_moves(self, outcome: str, choice: int) -> None:
        _walked(f"turn {outcome}")
        self.world.turn(outcome, choice)

    @rule(choices=st.lists(CHOICE, min_size=1, max_size=4))
    def garbage_is_collected(self, choices: list[int]) -> None:
        _walked("garbage")
        for choice in choices:
            self.world.sweep(choice)

    @rule(outcome=OUTCOME, turns=st.integers(1, 5))
    def everything_moves_on(self, outcome: str, turns: int) -> None:
        _walked("moves on")
        for _ in range(turns):
            self.world.settle()
            while self.world.sweep():
                pass
            self.world.turn(outcome)

    @rule(seconds=st.sampled_from([1, 11, 40, 400, -3600, -20, 7200]))
    def time_passes_or_jumps(self, seconds: int) -> None:
        _walked("clock jump" if seconds < 0 or seconds > 400 else "wait")
        self.world.advance(seconds)

    @rule(seconds=st.sampled_from([1, 11, 301]))
    def time_passes_and_is_used(self, seconds: int) -> None:
        _walked("wait and settle")
        self.world.advance(seconds)
        self.world.try_pass()
        self.world.settle()

    @precondition(lambda self: self.world.running_pods())
    @rule(how=st.sampled_from(["evicted", "node lost", "killed"]), choice=CHOICE)
    def a_running_pod_is_hit(self, how: str, choice: int) -> None:
        _walked(how)
        pods = self.world.running_pods()
        pod = pods[choice % len(pods)]
        if how == "node lost":
            self.world.lose_node(pod)
        elif how == "evicted":
            self.world.delete("Pod", pod)
        elif pod not in self.world.lost:
            self.world.end_pod(pod, exit_code=137, reason="Error")

    @precondition(lambda self: self.world.lost)
    @rule(is_for_good=st.booleans())
    def a_lost_node_comes_back_or_is_removed(self, is_for_good: bool) -> None:
        _walked("node removed" if is_for_good else "node back")
        if is_for_good:
            self.world.remove_node(min(self.world.lost))
        else:
            self.world.lost.clear()

    @precondition(lambda self: any("train" in pod for pod in self.world.running_pods()))
    @rule()
    def the_training_hangs(self) -> None:
        _walked("hang")
        self.world.stand_still()
        for _ in range(14):
            self.world.advance(11)
            self.world.try_pass()
        self.world.progress.answer = None

    @rule(choice=CHOICE)
    def a_queue_takes_a_place_away(self, choice: int) -> None:
        _walked("place taken away")
        self.world.take_place(choice)

    @rule(is_there=st.booleans())
    def a_default_queue_comes_or_goes(self, is_there: bool) -> None:
        _walked("default queue")
        self.world.cluster.has_default_queue = is_there

    # People

    @precondition(lambda self: self.world.job)
    @rule(is_suspended=st.booleans())
    def somebody_suspends_or_resumes(self, is_suspended: bool) -> None:
        _walked("suspend" if is_suspended else "resume")
        self.world.edit(suspend=is_suspended)

    @precondition(lambda self: self.world.job)
    @rule(retry=RETRIES, deadlines=DEADLINES, ttl=TTLS)
    def somebody_edits_what_may_change(self, **fields: Any) -> None:
        _walked("edit")
        self.world.edit(**fields)

    @precondition(lambda self: self.world.job)
    @rule()
    def somebody_labels_the_job(self) -> None:
        _walked("label")
        self._happens("labelled")

    @precondition(lambda self: self.world.job)
    @rule(is_background=st.booleans(), is_newest=st.booleans())
    def somebody_deletes_a_stage_s_job(self, is_background: bool, is_newest: bool) -> None:
        _walked("child deleted")
        self.world.delete_child(is_background=is_background, is_newest=is_newest)

    @precondition(lambda self: pod_at_work(self.world) is not None)
    @rule(is_swept=st.booleans(), lost=st.sampled_from(["nothing", "Job", "Pod"]))
    def somebody_deletes_a_stage_s_job_as_its_pod_succeeds(self, is_swept: bool, lost: str) -> None:
        if delete_as_it_succeeds(self.world, is_swept=is_swept, lost=lost):
            _walked("child deleted at its end")

    @precondition(lambda self: self.world.job)
    @rule(is_foreground=st.booleans())
    def somebody_deletes_the_job(self, is_foreground: bool) -> None:
        _walked("deleted")
        self.world.delete_job(is_foreground=is_foreground)

    @precondition(lambda self: self.world.job)
    @rule(policy=POLICIES)
    def somebody_changes_what_becomes_of_the_adapter(self, policy: str) -> None:
        _walked(f"policy {policy}")
        self.world.edit(deletionPolicy=policy)

    @precondition(lambda self: self.world.is_deleting)
    @rule()
    def somebody_takes_the_finalizers_off(self) -> None:
        _walked("finalizers taken off")
        self.world.force_job()

    @precondition(lambda self: not self.world.job)
    @rule(spec=SPECS)
    def somebody_applies_it_again(self, spec: dict[str, Any]) -> None:
        _walked("applied again")
        self.world.apply_job(**spec)

    def teardown(self) -> None:
        # After a failure another attempt would replace it.
        if hasattr(self, "world") and sys.exception() is None:
            self.world.come_to_rest()
            WALKED["lives"] += 1
            WALKED["lives that took back"] += sum(job == UNPUBLISH for _, job in self.world.judge.made)
            WALKED[f"ended as {self.world.status.state if self.world.job else 'deleted'}"] += 1

    def _deliver(self, count: int) -> None:
        rest = self.world.told[count:]
        self.world.told = self.world.told[:count]
        self.world.deliver()
        self.world.told = rest + self.world.told

    def _happens(self, what: str, outcome: str = "succeed", choice: int = 0) -> None:
        """Runs one of HAPPENINGS."""
        world = self.world
        if what == "events":
            self._deliver(choice + 1)
        elif what == "a move":
            world.turn(outcome, choice)
        elif what == "a place taken away":
            world.take_place(choice)
        elif what == "garbage":
            world.sweep(choice)
        elif what in {"suspend", "resume"}:
            world.edit(suspend=what == "suspend")
        elif what == "child deleted":
            world.delete_child(is_background=bool(choice % 2), is_newest=choice < 4)
        elif what == "finalizers taken off":
            world.force_job()
        elif what == "applied again":
            world.apply_job()
        elif what == "labelled" and world.job is not None:
            world.cluster.store("FineTuneJob", world.job)
        elif what.startswith("job deleted"):
            world.delete_job(is_foreground=what.endswith("foreground"))


def _walked(what: str) -> None:
    WALKED[what] += 1
    WALKED["steps"] += 1


RULES = frozenset(
    name for name, member in vars(Survival).items() if hasattr(member, "hypothesis_stateful_rule")
)


def only(rules: Collection[str], corner: Callable[[RoughWorld], object] | None = None) -> type[Survival]:
    """The machine with these rules alone, begun in a corner that a walk through everything seldom comes to."""
    unknown = set(rules) - RULES
    if unknown:
        raise ValueError(f"no rules of the machine: {sorted(unknown)}")
    members: dict[str, Any] = dict.fromkeys(RULES - set(rules))
    if corner is not None:

        def begin(machine: Survival) -> None:
            machine.world = RoughWorld()
            corner(machine.world)

        members["begin"] = initialize()(begin)
    return type("Aimed", (Survival,), members)


def walk(
    examples: int, *, machine: type[Survival] = Survival, number: int | None = None, shrinks: bool = True
) -> None:
    """Live this many lives: always the same ones, or those of a seed.

    Raises:
        AssertionError: with the name of what happened that never may; `shrinks`: in the shortest way to it.
    """
    run_state_machine_as_test(
        machine if number is None else seed(number)(type("Seeded", (machine,), {})),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS_OF_A_LIFE,
            deadline=None,
            database=None,
            derandomize=number is None,
            phases=[Phase.generate, *([Phase.shrink] if shrinks else [])],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
