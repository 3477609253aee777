# SPDX-License-Identifier: Apache-2.0
"""The end of the log outlives its pod: of attempts that failed, were killed or were stopped, of the newest three."""

import json
from typing import Any

from support.samples import failure_text, result_text
from support.world.training import in_training, run_training
from support.world.world import World
from tuneyard_api.pod_contract import FailureClass, Stage


def kept(world: World) -> list[str | None]:
    """What status keeps of each training attempt."""
    return [each.last_lines for each in world.status.attempts if each.stage is Stage.TRAIN]


def said(world: World, kind: FailureClass, lines: str) -> str:
    """The termination message of a stage that failed."""
    message = json.loads(failure_text(Stage.TRAIN, world.digest, kind, "words"))
    message["failure"]["lastLines"] = lines
    return json.dumps(message)


def fail(world: World, pod: str, message: str, **ending: Any) -> None:
    """The pod ends badly, and its Job with it."""
    world.end_pod(pod, **{"exit_code": 1, "reason": "Error", "message": message, **ending})
    world.fail_job(pod.removesuffix("-x"))
    world.settle()


def test_what_a_stage_said_last_is_kept_when_it_fails() -> None:
    world, pod = in_training()
    fail(world, pod, said(world, FailureClass.UPSTREAM, "train: training 7/28\nConnectionError"))
    assert kept(world) == ["train: training 7/28\nConnectionError"]


def test_of_a_stage_that_was_killed_it_is_what_the_kubelet_tells() -> None:
    world, pod = in_training()
    log = "\n".join(f"train: training {step}/9999" for step in range(200))
    fail(world, pod, log, reason="OOMKilled", exit_code=137)
    [lines] = kept(world)
    assert lines is not None
    assert lines.endswith("train: training 199/9999")
    assert len(lines) <= 2048, "the field is bounded"


def test_a_training_that_is_suspended_keeps_them_although_its_pod_is_deleted() -> None:
    world, pod = in_training()
    world.edit(suspend=True)
    world.settle()
    message = said(world, FailureClass.INTERRUPTED, "train: checkpoint 7")
    world.end_pod(pod, exit_code=20, reason="Error", message=message)
    world.settle()
    world.collect_garbage()
    world.settle()
    [attempt] = [each for each in world.status.attempts if each.stage is Stage.TRAIN]
    assert (attempt.outcome, attempt.last_lines) == ("Stopped", "train: checkpoint 7")


def test_only_the_newest_three_keep_theirs() -> None:
    world, pod = in_training(retry={"maxAttempts": 6})
    for attempt in range(1, 6):
        fail(world, pod, said(world, FailureClass.UPSTREAM, f"try {attempt}"))
        world.advance(600)
        world.one_pass()
        world.settle()
        pod = run_training(world, attempt + 1)
    assert kept(world) == [None, None, "try 3", "try 4", "try 5", None]


def test_an_attempt_that_ends_well_keeps_none() -> None:
    world, pod = in_training()
    world.end_pod(pod, message=result_text(Stage.TRAIN, world.digest))
    world.settle()
    assert kept(world) == [None]
