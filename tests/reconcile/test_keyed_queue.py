# SPDX-License-Identifier: Apache-2.0
"""The keyed queue and the loop over it: one worker a key, nothing lost, failures held back."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.world.pods import FakeMeter
from support.world.world import KEY, World
from tuneyard_operator.domain.measures import Changes
from tuneyard_operator.reconcile.queue import FIRST_DELAY, LAST_DELAY, Key, KeyedQueue

A, B, C = Key("n", "a"), Key("n", "b"), Key("n", "c")


def looped(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 60))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def fresh() -> KeyedQueue:
    return KeyedQueue(lambda key: key == C)


@looped
async def test_a_key_is_in_it_once_and_begun_jobs_go_first() -> None:
    queue = fresh()
    for key in (A, B, A, C):
        queue.add(key)
    assert len(queue) == 3
    assert [await queue.take() for _ in range(3)] == [C, A, B]


@looped
async def test_what_happens_during_a_pass_makes_another_one_due() -> None:
    queue = fresh()
    queue.add(A)
    assert await queue.take() == A
    queue.add(A)
    queue.add(A)
    assert len(queue) == 0, "two workers must never have one key"
    queue.done(A, requeue_after=100)
    assert await queue.take() == A
    queue.done(A)
    assert queue.is_idle


@looped
async def test_a_key_comes_back_when_it_is_due() -> None:
    queue = fresh()
    queue.add(A)
    await queue.take()
    queue.done(A, requeue_after=0.01)
    assert len(queue) == 0
    assert await queue.take() == A


@looped
async def test_an_event_comes_before_the_timer_and_replaces_it() -> None:
    queue = fresh()
    queue.add_later(A, 0.02)
    queue.add(A)
    await queue.take()
    queue.done(A)
    await asyncio.sleep(0.05)
    assert len(queue) == 0


@looped
async def test_a_failing_key_is_held_back_longer_each_time_whatever_comes() -> None:
    queue = fresh()
    delays = []
    for _ in range(9):
        queue._ring(A)
        await queue.take()
        delays.append(queue.failed(A))
        queue.add(A)
        assert len(queue) == 0, "events must not break the delay"
    assert delays[:3] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY]
    assert delays[-1] == LAST_DELAY
    queue._ring(A)
    await queue.take()
    queue.done(A)
    queue.add(A)
    assert len(queue) == 1, "one success and it is like any other"


@looped
async def test_a_key_that_is_gone_is_forgotten_with_its_timer() -> None:
    queue = fresh()
    queue.add_later(A, 0.01)
    queue.forget(A)
    await asyncio.sleep(0.03)
    assert queue.is_idle


class Passes(FakeMeter):
    """A meter that lets a test wait for the end of a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: asyncio.Queue[bool] = asyncio.Queue()

    def passed(self, seconds: float, *, failed: bool) -> None:  # noqa: ARG002  the port's signature
        self.ended.put_nowait(failed)

    def changed(self, namespace: str, changes: Changes) -> None:
        """No test here looks at them."""


def test_the_loop_outlives_errors_and_works_on(caplog: pytest.LogCaptureFixture) -> None:
    world, passes = World(), Passes()
    world.cluster.down = True
    world.reconciler.meter = passes

    async def work() -> None:
        queue = world.reconciler.queue
        task = asyncio.create_task(world.reconciler.run(2))
        queue.add(KEY)
        assert await passes.ended.get() is True
        world.cluster.down = False
        queue._ring(KEY)
        assert await passes.ended.get() is False
        assert world.reconciler.longest_pass() < 5
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(work(), 60))
    assert "team/a: no answer; again in 1 s" in caplog.text
    assert world.jobs() == ["a-prepare-1"]
