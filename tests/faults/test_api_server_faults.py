# SPDX-License-Identifier: Apache-2.0
"""What the operator hears is late, doubled, shuffled, cut off or nothing at all, and the API server is busy, slow or killed."""

import itertools
import random
import time
from collections import Counter

import pytest
from support.faults.history import wait_until
from support.faults.pod_player import Fate, interrupted_once
from support.faults.proxy import Call, Cut, Event, Instead
from support.faults.scene import Scene
from tuneyard_api.pod_contract import Stage

pytestmark = [
    pytest.mark.cluster,
    # urllib leaves a socket to the collector where a TLS handshake is cut, and here the API server is killed.
    pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning"),
]
SEED = 20_261_121
FOR_EVER = 3600.0


def test_watches_that_are_cut_again_and_again_are_taken_up_where_they_were(scene: Scene) -> None:
    seen = itertools.count(1)

    def cut(_: Call, event: Event) -> tuple[Event]:
        if next(seen) % 3 == 0:
            raise Cut
        return (event,)

    scene.proxy.stream = cut
    scene.start("--resync-seconds", "3600")
    scene.finish()
    assert next(seen) > 20


def test_watches_that_fall_silent_are_noticed(scene: Scene) -> None:
    """The connections stay open and nothing comes: a firewall has forgotten them.

    All of them: of a silent watch of pods alone, that of Jobs would tell, and the other way round.
    """
    open_watches: list[Call] = []
    silent: list[Call] = []

    def fall_silent(call: Call, event: Event) -> tuple[Event | float]:
        if not silent and call not in open_watches:
            open_watches.append(call)
        if not silent and event["type"] == "ADDED" and event["object"]["kind"] == "Pod":
            silent.extend(open_watches)
        return (FOR_EVER,) if call in silent else (event,)

    scene.proxy.stream = fall_silent
    scene.start("--resync-seconds", "3600")
    scene.finish()
    assert len(silent) > 1


def test_a_watch_whose_version_is_gone_lists_again(scene: Scene) -> None:
    told = itertools.count(1)

    def gone(_: Call, event: Event) -> tuple[Event]:
        if next(told) % 4 == 0:
            status = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "code": 410,
                "reason": "Expired",
            }
            return ({"type": "ERROR", "object": {**status, "message": "too old resource version"}},)
        return (event,)

    scene.proxy.stream = gone
    scene.start("--resync-seconds", "3600")
    scene.finish()
    assert next(told) > 20
    assert scene.operator.said().count("knows the objects of the cluster") == 1, (
        "one watch lists again, and no other"
    )


def test_after_an_error_in_a_watch_all_watches_are_begun_anew(scene: Scene) -> None:
    """Kopf gives up on it; a process that lived on without that watch would be blind."""
    told = itertools.count(1)

    def fail(call: Call, event: Event) -> tuple[Event]:
        if call.path.endswith("/jobs") and next(told) == 2:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500}
            return ({"type": "ERROR", "object": {**status, "message": "etcd is unwell"}},)
        return (event,)

    scene.proxy.stream = fail
    scene.start()
    wait_until("it says so", lambda: "etcd is unwell" in scene.operator.said())
    scene.finish()
    assert scene.operator.said().count("knows the objects of the cluster") == 2
    assert "Traceback" not in scene.operator.said()


def test_events_that_come_twice_late_and_out_of_order_change_nothing(scene: Scene) -> None:
    """Each event may come twice, and an older one of the same object after it: also after its deletion."""
    chance, former = random.Random(SEED), dict[str, Event]()
    repeated = itertools.count()

    def shuffle(_: Call, event: Event) -> list[Event | float]:
        metadata = event["object"].get("metadata", {})
        if event["type"] == "BOOKMARK":
            return [event]
        out: list[Event | float] = [event]
        if chance.random() < 0.5:
            out.append(event)
        before = former.get(metadata["uid"])
        if before is not None and chance.random() < 0.7:
            next(repeated)
            out += [0.05, {**before, "type": "MODIFIED"}]
        former[metadata["uid"]] = event
        return out

    scene.player.plan = interrupted_once
    scene.proxy.stream = shuffle
    scene.start("--resync-seconds", "3600")
    scene.finish(jobs=["a-prepare-1", "a-publish-1", "a-train-1", "a-train-2"])
    assert next(repeated) > 5


def test_deletions_that_a_watch_lost_are_found_by_comparing_with_a_list(scene: Scene) -> None:
    scene.player.plan = lambda stage, number: None if (stage, number) == (Stage.TRAIN, 1) else Fate()
    scene.proxy.stream = lambda _, event: () if event["type"] == "DELETED" else (event,)
    scene.start()
    scene.job.wait_for("Trained", "False")
    scene.cluster.kubectl("delete", "job", "a-train-1", "-n", scene.job.namespace, "--wait=false")
    scene.finish(jobs=["a-prepare-1", "a-publish-1", "a-train-2"])


def test_too_many_requests_is_kept_to_for_as_long_as_the_api_server_says(scene: Scene) -> None:
    refused: list[float] = []

    def busy(call: Call) -> Instead | None:
        if call.is_write and call.plural == "jobs" and len(refused) < 2:
            refused.append(time.monotonic())
            return Instead(429, retry_after="4")
        return None

    scene.proxy.answer = busy
    scene.start()
    scene.finish()
    tried = [call.at for call, _ in scene.proxy.writes() if call.plural == "jobs"][:3]
    assert len(refused) == 2
    assert [later - earlier >= 3.9 for earlier, later in itertools.pairwise(tried)] == [True, True]


def test_a_watch_that_is_refused_many_times_is_asked_for_again_soon_and_for_ever(scene: Scene) -> None:
    """More often than kopf's own patience, which also waits ever longer, and gives up in the end."""
    refused: list[float] = []

    def ill(call: Call) -> Instead | None:
        if call.is_watch and call.path.endswith("/pods"):
            refused.append(call.at)
            return Instead(500)
        return None

    scene.player.plan = lambda *_: None
    scene.proxy.answer = ill
    scene.start("--resync-seconds", "3600")
    # By kopf's own patience the tenth would come after a minute and a half.
    scene.wait("ten refusals", lambda: len(refused) > 9, 60)
    assert scene.operator.is_running
    scene.proxy.restore()
    scene.player.plan = lambda *_: Fate()
    scene.finish()


def test_errors_before_and_after_a_write_was_carried_out_repeat_nothing(scene: Scene) -> None:
    """The first try of every write fails: it is refused, or cut off before, or carried out and its answer is lost."""
    faults = itertools.cycle(["refused", "cut", "lost"])
    injected: list[str] = []
    losing: list[Call] = []
    tried: Counter[tuple[str, str, str]] = Counter()

    def fail(call: Call) -> Instead | None:
        if not call.is_write:
            return None
        what = (call.method, call.path, call.body["metadata"]["name"] if call.method == "POST" else "")
        tried[what] += 1
        # A status is written again and again: every other time. What was created is not refused once more.
        if tried[what] % 2 == 0 or (call.method == "POST" and tried[what] > 1):
            return None
        injected.append(next(faults))
        if injected[-1] == "cut":
            raise Cut
        if injected[-1] == "lost":
            losing.append(call)
        return Instead(500) if injected[-1] == "refused" else None

    def lose_the_answer(call: Call, _: int) -> None:
        if call in losing:
            raise Cut

    scene.proxy.answer, scene.proxy.wrote = fail, lose_the_answer
    scene.start()
    scene.finish(300)
    assert set(injected) == {"refused", "cut", "lost"}


def test_slow_answers_only_make_it_slow(scene: Scene) -> None:
    chance = random.Random(SEED)
    scene.proxy.answer = lambda call: None if call.is_watch else chance.uniform(0.1, 0.6)
    scene.start()
    scene.finish(300)


@pytest.mark.parametrize(
    ("parts", "stages"),
    [(("kube-apiserver",), tuple(Stage)), (("kube-apiserver", "etcd"), (Stage.TRAIN,))],
    ids=["api server in each stage", "etcd too"],
)
def test_the_api_server_is_killed_in_the_middle_of_a_stage(
    scene: Scene, parts: tuple[str, ...], stages: tuple[Stage, ...]
) -> None:
    done: set[Stage] = set(Stage) - set(stages)
    scene.player.plan = lambda stage, _: Fate() if stage in done else None
    scene.start()
    processes = scene.cluster.processes
    for stage in stages:
        # The scheduler finds back slowly.
        scene.wait(f"{stage} runs", lambda now=stage: scene.is_running(now), 180)
        for part in parts:
            processes.kill(part)
        for part in reversed(parts):
            processes.start_again(part)
        scene.cluster.wait_until_ready()
        done.add(stage)
    scene.finish()
    assert scene.operator.is_running
