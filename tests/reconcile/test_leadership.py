# SPDX-License-Identifier: Apache-2.0
"""The lease: one replica works, the others watch, and no wall clock is believed."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from support.world.world import World
from tuneyard_operator.reconcile.leadership import LEASE, Leadership

SECONDS = 15.0


class Race:
    """Replicas at one API server, and a steady clock that only the test moves."""

    def __init__(self) -> None:
        self.world, self.steady = World(), 0.0

    def replica(self, name: str) -> Leadership:
        return Leadership(self.world.cluster, self.world, "system", name, SECONDS, steady=lambda: self.steady)

    def holds(self, replica: Leadership) -> bool:
        return asyncio.run(replica.try_to_hold(5))

    @property
    def spec(self) -> dict[str, Any]:
        return self.world.cluster.objects["Lease", "system", LEASE]["spec"]


@pytest.fixture
def race() -> Race:
    return Race()


def test_the_first_takes_it_and_the_second_waits(race: Race) -> None:
    first, second = race.replica("first"), race.replica("second")
    assert race.holds(first)
    assert not race.holds(second)
    assert (race.spec["holderIdentity"], race.spec["leaseDurationSeconds"]) == ("first", 15)
    assert race.spec["leaseTransitions"] == 0


def test_a_lease_that_is_renewed_is_never_taken(race: Race) -> None:
    first, second = race.replica("first"), race.replica("second")
    for _ in range(20):
        assert race.holds(first)
        assert not race.holds(second)
        race.steady += 10


def test_a_lease_that_nobody_renews_is_taken_after_its_duration_and_not_before(race: Race) -> None:
    first, second = race.replica("first"), race.replica("second")
    assert race.holds(first)
    assert not race.holds(second)
    race.steady += SECONDS - 0.1
    assert not race.holds(second)
    race.steady += 0.2
    assert race.holds(second)
    assert (race.spec["holderIdentity"], race.spec["leaseTransitions"]) == ("second", 1)
    assert not race.holds(first), "it came back too late"


@pytest.mark.parametrize("jump", [timedelta(days=400), timedelta(days=-400)])
def test_a_wall_clock_that_jumps_neither_takes_nor_loses_it(race: Race, jump: timedelta) -> None:
    first, second = race.replica("first"), race.replica("second")
    assert race.holds(first)
    race.world.moment += jump
    assert not race.holds(second)
    race.world.moment -= 2 * jump
    assert race.holds(first)


def test_of_two_that_see_it_expire_at_once_one_gets_it(race: Race) -> None:
    assert race.holds(race.replica("dead"))
    others = [race.replica("second"), race.replica("third")]
    assert not any(race.holds(each) for each in others)
    race.steady += 20
    lease = race.world.cluster.objects["Lease", "system", LEASE]

    async def both() -> list[bool]:
        for each in others:
            each._see(lease)
        return [await each._write(lease) for each in others]

    assert asyncio.run(both()) == [True, False]


def test_the_same_name_continues_with_its_lease_at_once(race: Race) -> None:
    assert race.holds(race.replica("pod-a"))
    assert race.holds(race.replica("pod-a")), "a container that starts again in its pod"
    assert race.spec["leaseTransitions"] == 0


def test_what_is_given_back_is_free_at_once(race: Race) -> None:
    first, second = race.replica("first"), race.replica("second")
    assert race.holds(first)
    asyncio.run(first._give_back())
    assert race.holds(second)


def test_a_replica_that_was_paused_knows_it_by_its_clock_before_it_asks_anybody(race: Race) -> None:
    first = race.replica("first")
    assert not first.is_safe()
    assert race.holds(first)
    race.steady += SECONDS - 1
    assert first.is_safe()
    race.steady += 1
    assert not first.is_safe()


class Worker:
    """Counts how often it was started and whether it is at work."""

    def __init__(self) -> None:
        self.started, self.at_work = 0, False

    async def work(self) -> None:
        self.started, self.at_work = self.started + 1, True
        try:
            await asyncio.Event().wait()
        finally:
            self.at_work = False


def test_an_operator_that_can_t_renew_stops_working_before_others_may_begin_and_continues_later() -> None:
    world, worker = World(), Worker()
    leadership = Leadership(world.cluster, world, "system", "a", 4.5)

    async def scenario() -> None:
        task = asyncio.ensure_future(leadership.work_while_held(worker.work))
        await until(lambda: worker.at_work)
        world.cluster.down = True
        began = asyncio.get_running_loop().time()
        await until(lambda: not worker.at_work)
        assert asyncio.get_running_loop().time() - began < leadership.seconds
        world.cluster.down = False
        await until(lambda: worker.at_work)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(scenario())
    assert (worker.started, worker.at_work) == (2, False)
    assert world.cluster.objects["Lease", "system", LEASE]["spec"]["holderIdentity"] == "", "given back"


def test_an_error_of_the_work_is_not_swallowed() -> None:
    world = World()

    async def fails() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        asyncio.run(Leadership(world.cluster, world, "system", "a", 0.6).work_while_held(fails))


async def until(is_so: Any) -> None:
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110  what is waited for is a plain value
            await asyncio.sleep(0.01)
