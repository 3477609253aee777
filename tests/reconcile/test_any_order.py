# SPDX-License-Identifier: Apache-2.0
"""Whatever is lost, shuffled, killed or interrupted, a job reaches the same end and nothing finished is repeated."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.samples import result_text
from support.world.cluster import Dead
from support.world.world import World
from tuneyard_api import names
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import State
from tuneyard_operator.domain.state import is_terminal


def play_kubelet(world: World) -> bool:
    """Move the newest unfinished Job one step on; whether there was one."""
    for job in reversed(world.cluster.of_kind("Job")):
        name, status = job["metadata"]["name"], job.get("status") or {}
        if status.get("succeeded") or status.get("failed"):
            continue
        stage = Stage(job["metadata"]["labels"][names.LABEL_STAGE])
        pod = world.cluster.objects.get(("Pod", "team", f"{name}-x"))
        if pod is None:
            require_alone(world, stage)
            world.make_pod(name)
        elif pod["status"]["phase"] == "Pending":
            world.run_pod(f"{name}-x")
        elif pod["status"]["phase"] == "Running":
            digest = job["metadata"]["annotations"][names.ANNOTATION_PLAN]
            world.end_pod(f"{name}-x", message=result_text(stage, digest))
        else:
            world.set_job(name, active=0, succeeded=1, conditions=[{"type": "Complete", "status": "True"}])
        return True
    return False


def interrupt(world: World) -> bool:
    """Kill a running pod; whether there was one."""
    for pod in world.cluster.of_kind("Pod"):
        if pod["status"]["phase"] == "Running":
            world.end_pod(pod["metadata"]["name"], exit_code=143, reason="Error")
            world.fail_job(pod["metadata"]["ownerReferences"][0]["name"])
            return True
    return False


def require_alone(world: World, stage: Stage) -> None:
    """Two pods of one stage would write to one workspace."""
    for pod in world.cluster.of_kind("Pod"):
        same = pod["metadata"]["labels"][names.LABEL_STAGE] == stage
        assert not same or pod["status"]["phase"] in {"Failed", "Succeeded"}, "two pods of one stage"


def carry_to_the_end(world: World) -> None:
    for _ in range(60):
        world.settle()
        if is_terminal(world.status.conditions):
            return
        if not play_kubelet(world):
            world.one_pass()
    raise AssertionError(f"no end: {world.conditions()} {world.status.message}")


def require_a_good_end(world: World, interruptions: int) -> None:
    status = world.status
    assert status.state is State.SUCCEEDED, status.message
    for stage in Stage:
        attempts = [attempt for attempt in status.attempts if attempt.stage is stage]
        assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
        assert [attempt.outcome for attempt in attempts[:-1]] == ["Failed"] * (len(attempts) - 1)
        assert attempts[-1].outcome == "Succeeded"
    assert len(status.attempts) == 3 + interruptions
    assert sorted(world.jobs()) == sorted(attempt.job for attempt in status.attempts)
    assert {status for status, _ in world.conditions().values()} == {"True"}


CALLS_OF_A_LIFE = 12


@pytest.mark.parametrize("call", range(CALLS_OF_A_LIFE))
def test_killed_before_any_request_it_continues_from_there(call: int) -> None:
    world = World()
    world.cluster.calls.clear()
    world.cluster.die_before = call
    with pytest.raises(Dead):
        carry_to_the_end(world)
    world.cluster.die_before = None
    world.start_operator()
    carry_to_the_end(world)
    require_a_good_end(world, interruptions=0)
    require_nothing_left_to_do(world)


def require_nothing_left_to_do(world: World) -> None:
    calls, status = len(world.cluster.calls), world.status
    world.start_operator()
    world.settle()
    world.one_pass()
    assert [call for call in world.cluster.calls[calls:] if not call.startswith("list")] == []
    assert world.status == status


def test_no_answer_from_the_api_server_changes_nothing() -> None:
    world = World()
    world.settle()
    before = world.status
    world.cluster.down = True
    world.make_pod("a-prepare-1")
    world.run_pod("a-prepare-1-x")
    world.end_pod("a-prepare-1-x", message=result_text(Stage.PREPARE, world.digest))
    with pytest.raises(Exception, match="no answer"):
        world.settle()
    assert world.status == before
    world.cluster.down = False
    carry_to_the_end(world)
    require_a_good_end(world, interruptions=0)


def test_a_deletion_that_the_watch_lost_is_noticed_by_comparing() -> None:
    world = World()
    world.settle()
    world.run_pod(world.make_pod("a-prepare-1"))
    world.settle()
    world.cluster.remove("Pod", "a-prepare-1-x")
    world.cluster.remove("Job", "a-prepare-1")
    world.told.clear()
    world.one_pass()
    assert world.jobs() == []
    world.compare()
    world.settle()
    assert world.jobs() == ["a-prepare-2"]
    world.cluster.remove(names.JOB_KIND, "a")
    world.cluster.remove(names.RUNTIME_KIND, "hf", namespace="")
    world.told.clear()
    world.compare()
    assert world.operator_store.state_counts() == {}
    assert world.operator_store.runtimes == {}


STEPS = st.lists(
    st.sampled_from(["kubelet", "deliver", "pass", "lose", "shuffle", "kill", "interrupt", "wait"]),
    max_size=40,
)


@given(steps=STEPS, seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_lost_and_shuffled_events_reach_the_same_end(steps: list[str], seed: int) -> None:
    world, chance, interruptions = World(), random.Random(seed), 0
    for step in steps:
        if step == "kubelet":
            play_kubelet(world)
        elif step == "deliver":
            world.deliver()
        elif step == "pass":
            world.one_pass()
        elif step == "lose":
            world.told.clear()
        elif step == "shuffle":
            chance.shuffle(world.told)
        elif step == "kill":
            world.start_operator()
        elif step == "interrupt" and interruptions < 2:
            interruptions += interrupt(world)
        elif step == "wait":
            world.advance(11)
    world.compare()
    carry_to_the_end(world)
    require_a_good_end(world, interruptions)
    require_nothing_left_to_do(world)
