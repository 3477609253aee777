# SPDX-License-Identifier: Apache-2.0
"""How long everyone waits when several processes train: for each other, and for a checkpoint after SIGTERM."""

import time
from datetime import timedelta

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


def test_nodes_wait_for_each_other_for_a_quarter_of_an_hour(job):
    assert options(launch._command(job, {"PET_MASTER_ADDR": "first"}))["rdzv-conf"] == "timeout=900"
    alone = launch._command(job, {})
    assert "--standalone" in alone
    assert "rdzv-conf" not in options(alone)


@pytest.mark.torch
def test_a_store_that_finds_nobody_takes_one_to_three_times_its_timeout():
    """The fact of PyTorch on which the times of launch._MEETING_SECONDS rest."""
    distributed = pytest.importorskip("torch.distributed")
    began, timeout = time.monotonic(), 2.0
    with pytest.raises(distributed.DistNetworkError, match="timed out after 2000ms"):
        distributed.TCPStore("127.0.0.1", 1, 2, is_master=False, timeout=timedelta(seconds=timeout))
    assert timeout <= time.monotonic() - began <= 3 * timeout + 2
