# SPDX-License-Identifier: Apache-2.0
"""The operator is killed between any two writes, paused, doubled; jobs are edited and deleted at each step."""

import json
import os
import signal
import time

import pytest
from support.cluster.operator_setup import build_claim
from support.faults.history import wait_until
from support.faults.invariants import CHILDREN
from support.faults.pod_player import Fate, interrupted_once
from support.faults.proxy import Call, FaultProxy
from support.faults.scene import CHAIN, FLAGS, OTHER_LEASE, Scene
from support.samples import job_spec
from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.status import State

pytestmark = pytest.mark.cluster
RETRIED = ["a-prepare-1", "a-publish-1", "a-train-1", "a-train-2"]
CREATED, OK = 201, 200


def test_killed_after_each_of_its_writes_it_continues_and_makes_nothing_twice(scene: Scene) -> None:
    """Every life of the operator ends with the first write that changes something, before it learns of its answer."""
    lives: list[str] = []

    def die(call: Call, status: int) -> None:
        if status in {CREATED, OK} and scene.operator.process is not None:
            lives.append(f"{call.method} {call.plural}")
            scene.operator.process.kill()

    scene.player.plan = interrupted_once
    scene.proxy.wrote = die
    scene.start()
    status = scene.finish(400, jobs=RETRIED, restart=True)
    made = [
        call.body["metadata"]["name"]
        for call, code in scene.proxy.writes()
        if call.plural == "jobs" and code == CREATED
    ]
    assert sorted(made) == RETRIED
    assert len(lives) >= 12, lives
    assert {
        "POST configmaps",
        "POST persistentvolumeclaims",
        "POST jobs",
        "PATCH finetunejobs/status",
    } <= set(lives)
    assert [(each.stage, each.number, each.outcome) for each in status.attempts] == [
        (Stage.PREPARE, 1, "Succeeded"),
        (Stage.TRAIN, 1, "Failed"),
        (Stage.TRAIN, 2, "Succeeded"),
        (Stage.PUBLISH, 1, "Succeeded"),
    ]
    assert status.attempts[1].failure_class is FailureClass.INTERRUPTED


def test_of_two_operators_one_works_and_the_other_takes_over_when_it_is_killed(scene: Scene) -> None:
    scene.player.plan = lambda stage, _: None if stage is Stage.TRAIN else Fate()
    with FaultProxy(scene.cluster) as proxy:
        second = scene.add_operator(proxy, "second")
        # Three seconds could pass while a busy machine lets the first one wait, and it would lose its lease unkilled.
        patient = (*FLAGS, "--lease-seconds", "20")
        scene.operator.start(*patient, "--identity", "first")
        wait_until("the first holds the lease", lambda: "first holds the lease" in scene.operator.said())
        second.start(*patient, "--identity", "second")
        scene.job.apply(job_spec())
        scene.job.wait_for("Scheduled", "True")
        assert proxy.writes() == [], "without the lease it watches and does nothing"
        scene.operator.kill()
        scene.player.plan = lambda *_: Fate()
        scene.finish()
        assert proxy.writes()
        lease = scene.cluster.get("/apis/coordination.k8s.io/v1/namespaces/default/leases/tuneyard-operator")
        assert lease["spec"]["holderIdentity"] == "second"


def test_an_operator_that_is_paused_while_another_takes_over_does_nothing_when_it_wakes(scene: Scene) -> None:
    scene.player.plan = lambda stage, _: None if stage is Stage.TRAIN else Fate()
    with FaultProxy(scene.cluster) as proxy:
        second = scene.add_operator(proxy, "second")
        scene.start("--identity", "first")
        second.start(*FLAGS, "--identity", "second")
        scene.job.wait_for("DataReady", "True")
        process = scene.operator.process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        wait_until("the second holds the lease", lambda: "second holds the lease" in second.said())
        before = len(scene.proxy.writes())
        scene.player.plan = lambda *_: Fate()
        scene.job.wait_for("Published", "True")
        os.kill(process.pid, signal.SIGCONT)
        wait_until("the first knows it", lambda: "first only watches" in scene.operator.said())
        scene.finish()
        assert not [call for call, code in scene.proxy.writes()[before:] if code in {CREATED, OK}]


def test_two_operators_that_both_work_double_nothing(scene: Scene) -> None:
    """Their leases are in two namespaces: neither knows of the other. What the second hears is half a second old."""
    with FaultProxy(scene.cluster) as proxy:
        proxy.stream = lambda _, event: (0.5, event)
        second = scene.add_operator(proxy, "second", OTHER_LEASE)
        second.start(*FLAGS)
        scene.player.plan = interrupted_once
        scene.start()
        scene.finish(jobs=RETRIED)
        assert scene.proxy.writes()
        assert proxy.writes(), "the second worked too"


def test_a_lease_is_given_back_at_the_end_so_that_the_next_need_not_wait(scene: Scene) -> None:
    scene.operator.start(*FLAGS[:-1], "300", "--identity", "leaves")
    wait_until("it holds the lease", lambda: "leaves holds the lease" in scene.operator.said())
    assert scene.operator.stop() == 0
    scene.operator.start(*FLAGS, "--identity", "comes")
    # Much sooner than after the 300 s of a lease that was kept.
    wait_until("the next holds it", lambda: "comes holds the lease" in scene.operator.said())


STEPS = ("Planned", "DataReady", "Scheduled", "Evaluated", "Published")


def test_deleted_at_each_step_a_job_leaves_nothing_and_its_name_can_be_used_again(scene: Scene) -> None:
    scene.operator.start(*FLAGS)
    scene.player.plan = lambda *_: Fate(0.6)
    for step in STEPS:
        scene.job.apply(job_spec())
        scene.job.wait_for(step, "True")
        scene.cluster.kubectl("delete", "finetunejob", "a", "-n", scene.job.namespace, "--wait=false")
        scene.wait(f"nothing is left after {step}", lambda: not left(scene))
        renew_workspace_volume(scene)
    scene.player.plan = lambda *_: Fate()
    scene.job.apply(job_spec())
    scene.finish()


def renew_workspace_volume(scene: Scene) -> None:
    """A volume is bound once; there is no provisioner here that would make another."""
    [volume] = build_claim(scene.job.namespace, "a-workspace")
    scene.cluster.kubectl("delete", "pv", volume["metadata"]["name"])
    scene.cluster.apply(volume)


def left(scene: Scene) -> list[str]:
    """Children of ours that are there."""
    return [
        body["metadata"]["name"]
        for kind in CHILDREN
        for body in scene.history.api.items(
            f"{kind.format(scene.job.namespace)}?labelSelector={names.LABEL_JOB}"
        )
    ]


def test_edited_and_annotated_at_each_step_a_job_continues_as_it_was_started(scene: Scene) -> None:
    """Annotations are somebody else's writes between ours; an edited spec counts for nothing once the job has begun."""
    plans: set[str] = set()
    scene.player.plan = lambda *_: Fate(0.6)
    scene.start()
    for step in STEPS:
        scene.job.wait_for(step, "True")
        patch = json.dumps({"metadata": {"annotations": {"team/step": step}}})
        words = ("patch", "finetunejob", "a", "-n", scene.job.namespace, "--type=merge", "-p")
        assert scene.cluster.kubectl(*words, patch).returncode == 0
        scene.cluster.kubectl(*words, json.dumps({"spec": {"training": {"seed": STEPS.index(step)}}}))
        plans.add(scene.job.status.plan.digest)
        if step == "DataReady":  # a new process has only what was written down
            scene.operator.kill()
            scene.operator.start(*FLAGS)
    scene.finish()
    assert len(plans) == 1, "it is trained as it was planned"


def test_a_job_whose_job_is_deleted_by_hand_starts_the_stage_again(scene: Scene) -> None:
    scene.player.plan = lambda stage, number: None if (stage, number) == (Stage.TRAIN, 1) else Fate()
    scene.start()
    scene.job.wait_for("Trained", "False")
    scene.cluster.kubectl("delete", "job", "a-train-1", "-n", scene.job.namespace, "--wait=false")
    scene.finish(jobs=["a-prepare-1", "a-publish-1", "a-train-2"])


def test_while_the_kubelet_is_stopped_its_pod_is_waited_for_and_then_the_job_continues(scene: Scene) -> None:
    """The Job is gone and its pod is told to end, but nobody confirms that it did: it may still write."""
    scene.player.plan = lambda stage, number: None if (stage, number) == (Stage.TRAIN, 1) else Fate()
    scene.start()
    scene.job.wait_for("Trained", "False")
    scene.cluster.processes.kill("kwok")
    try:
        where = ("-n", scene.job.namespace)
        scene.cluster.kubectl("delete", "job", "a-train-1", "--cascade=background", "--wait=false", *where)
        scene.wait("it is waited for", lambda: waits_for(scene) == reasons.FORMER_POD_ENDING)
        scene.operator.kill()
        scene.operator.start(*FLAGS)
        time.sleep(8)  # the lease, and a comparison of lists
        assert scene.job.jobs() == ["a-prepare-1"]
        assert waits_for(scene) == reasons.FORMER_POD_ENDING
    finally:
        scene.cluster.processes.start_again("kwok")
    scene.finish(jobs=["a-prepare-1", "a-publish-1", "a-train-2"])


def waits_for(scene: Scene) -> str:
    waiting = scene.job.status.waiting_for
    return waiting.reason if waiting is not None else ""


def test_what_is_done_is_not_done_again_when_its_job_is_deleted(scene: Scene) -> None:
    scene.player.plan = lambda stage, _: None if stage is Stage.PUBLISH else Fate()
    scene.start()
    scene.job.wait_for("Published", "False")
    scene.operator.kill()
    scene.cluster.kubectl("delete", "job", "a-prepare-1", "a-train-1", "-n", scene.job.namespace)
    scene.player.plan = lambda *_: Fate()
    scene.operator.start(*FLAGS)
    status = scene.finish(jobs=["a-publish-1"])
    assert status.state is State.SUCCEEDED
    assert len(status.attempts) == len(CHAIN)
