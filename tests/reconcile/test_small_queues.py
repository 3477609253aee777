# SPDX-License-Identifier: Apache-2.0
"""A training that is larger than the whole of its queue ends at once, with both numbers."""

import pytest
from support.world.queue import let_go, take_place
from support.world.training import QUEUE_IS_FULL, in_queue, in_training
from tuneyard_api import reasons
from tuneyard_api.status import State
from tuneyard_operator.domain.observed import SeenQueue

TOO_SMALL = (
    "couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu in flavor gpu, "
    "previously considered podsets requests (0) + current podset request (8) > maximum capacity (4)"
)


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        (TOO_SMALL, True),
        ("couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu in flavor gpu, request > maximum capacity (8 > 4)", True),
        (f"{TOO_SMALL}, {QUEUE_IS_FULL}", False),
        (f"couldn't assign flavors to pod set main: {QUEUE_IS_FULL}", False),
    ],
    ids=["Kueue 0.19", "Kueue 0.16", "another flavor is only full", "full"],
)  # fmt: skip
def test_a_job_above_its_whole_queue_ends_at_once_with_both_numbers(said: str, *, ends: bool) -> None:
    world = in_queue()
    world.cluster.seen_queue = SeenQueue("job-a-train-1-8f3a1", "team-a", said)
    world.settle()
    world.one_pass()
    assert (world.status.state is State.FAILED) is ends, world.status.message
    if ends:
        assert world.conditions()["Succeeded"] == ("False", reasons.QUOTA_TOO_SMALL)
        message = world.status.message or ""
        assert message.startswith("ClusterQueue team-a can never hold this training: ")
        assert "try fewer GPUs" in message
        world.settle()
        assert ("Job", "team", "a-train-1") not in world.cluster.objects, "nothing is left in the queue"


def test_a_training_that_ran_before_its_queue_became_smaller_is_not_ended() -> None:
    world, _ = in_training(scheduling={"queue": "gpus"})
    let_go(world, "a-train-1")
    world.settle()
    world.one_pass()
    take_place(world, "a-train-1")
    world.cluster.seen_queue = SeenQueue("job-a-train-1-8f3a1", "team-a", TOO_SMALL)
    world.settle()
    world.one_pass()
    assert world.status.state is State.QUEUED, world.status.message
