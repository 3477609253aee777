# SPDX-License-Identifier: Apache-2.0
"""How long everyone waits when several processes train: for a checkpoint after SIGTERM."""

import pytest
from tuneyard_api.pod_contract import GRACE_SECONDS, Stage
from tuneyard_trainer import launch, stages


def options(command):
    return dict(word[2:].split("=", 1) for word in command if word.startswith("--") and "=" in word)


@pytest.fixture
def job(model_files, jsonl, job_of):
    return job_of(model_files, jsonl([]), gpusPerNode=2)


def test_torchrun_lets_its_workers_write_for_almost_the_whole_grace_of_the_pod(job):
    shutdown = int(options(launch._command(job, {}))["shutdown-timeout"])
    given_up = stages._patience(Stage.TRAIN)
    # Each one ends inside the patience of the one above it: workers, torchrun, the stage, the pod.
    assert 30 < 0.8 * GRACE_SECONDS[Stage.TRAIN] < shutdown < given_up < GRACE_SECONDS[Stage.TRAIN]


@pytest.mark.parametrize("stage", list(Stage))
def test_each_stage_gives_up_with_time_left_to_say_so(stage):
    assert GRACE_SECONDS[stage] - stages._patience(stage) == 10
