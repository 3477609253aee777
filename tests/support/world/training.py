# SPDX-License-Identifier: Apache-2.0
"""A job whose training runs, and the ways in which it continues: the start of the survival tests."""

from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.status import State
from tuneyard_operator.domain.observed import SeenQueue

from support.samples import failure_text, job_spec, runtime_without_endpoint
from support.world.world import World

QUEUE_IS_FULL = "insufficient unused quota for nvidia.com/gpu in flavor gpu, 2 more needed"
"""What Kueue says of a Workload while others hold the quota."""


def in_queue(**spec: object) -> World:
    """A job whose data is ready, and whose training waits in LocalQueue `gpus`."""
    world = World(spec=job_spec(scheduling={"queue": "gpus"}, **spec), runtime=runtime_without_endpoint())
    world.cluster.seen_queue = SeenQueue("job-a-train-1-8f3a1", "team-a", QUEUE_IS_FULL)
    world.settle()
    world.carry_out(Stage.PREPARE)
    world.one_pass()
    return world


def in_training(**spec: object) -> tuple[World, str]:
    """A job whose training pod runs."""
    world = World(spec=job_spec(**spec), runtime=runtime_without_endpoint())
    return world, start_training(world)


def start_training(world: World) -> str:
    """The pod of the first training, which runs from now on; the job has just been applied."""
    world.settle()
    world.carry_out(Stage.PREPARE)
    return run_training(world, 1)


def run_training(world: World, attempt: int) -> str:
    """The pod of a training attempt, which runs from now on."""
    pod = world.make_pod(f"a-train-{attempt}")
    world.run_pod(pod)
    world.settle()
    world.one_pass()
    return pod


def fail(world: World, pod: str, kind: FailureClass, job: str = "a-train-1") -> None:
    message = failure_text(Stage.TRAIN, world.digest, kind, "words")
    world.end_pod(pod, exit_code=1, reason="Error", message=message)
    world.fail_job(job)
    world.settle()


def leave(world: World, pod: str) -> None:
    """The pod has written its checkpoint and ends."""
    world.end_pod(pod, exit_code=20, reason="Error")
    world.collect_garbage()
    world.settle()


def finish(world: World, attempt: int) -> None:
    world.carry_out(Stage.TRAIN, attempt)
    world.carry_out(Stage.PUBLISH)
    assert world.status.state is State.SUCCEEDED, world.status.message
