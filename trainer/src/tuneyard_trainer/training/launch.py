# SPDX-License-Identifier: Apache-2.0
"""Starts the processes of a distributed training with torchrun, and reduces their outcomes to one.

torchrun reads PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR and so on by itself; without a master address, as on a
laptop, all processes are here. A training that loses a process ends everywhere and goes on from its checkpoint.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from tuneyard_api.pod_contract import Failure, FailureClass, ResolvedJob, Stage, StageResult, TrainFacts

from tuneyard_trainer.pod.context import RESULT_SECONDS, StageContext, patience
from tuneyard_trainer.pod.environment import usable_cores
from tuneyard_trainer.pod.failures import Interrupted, StageFailure

_POLL_SECONDS = 0.5
_WORKERS = "workers-{}"
"""Folder of a node's results in that of all results."""
_MEETING_SECONDS = 900
"""How long the nodes wait for each other: one may still be pulling its image.

A node that finds nobody at the first one's address waits up to three times as long: TCPStore of PyTorch 2.15 tries
twice, each time for the whole timeout, with a pause of up to the timeout in between.
"""
_SHUTDOWN_SECONDS = patience(Stage.TRAIN) - RESULT_SECONDS
"""How long torchrun lets its workers write a checkpoint after SIGTERM, 30 s unless told: it must end before the stage is
given up."""


def train_distributed(context: StageContext) -> TrainFacts:
    """Runs one worker per GPU of this node and returns the training's facts.

    Raises:
        StageFailure: of the worker that failed for a reason of its own.
    """
    folder, job = workers_folder(context.workspace, node_rank(os.environ)), context.job
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob("rank-*.json"):
        left_over.unlink()
    began = time.monotonic()
    code = _run(context, _command(job, os.environ))
    minutes = round((time.monotonic() - began) / 60)
    results = _results(folder, context.plan_digest)
    context.board.times_of(results[0].times if results else None)
    failures = [result.failure for result in results if result.failure]
    if failures:
        context.board.keep(_first_cause(failures).last_lines)
        raise root_cause(folder.parent, context.plan_digest)
    if code == 0 and len(results) == job.gpus_per_node:
        return TrainFacts.model_validate(results[0].facts)
    if context.stop:
        raise Interrupted(
            "stopped by SIGTERM, and the workers left no result: they had not begun, or a checkpoint took more than"
            f" {_SHUTDOWN_SECONDS} s; the next attempt continues from the last checkpoint"
        )
    if job.nodes > 1 and not results:
        raise Interrupted(
            f"node {node_rank(os.environ)} of {job.nodes}: torchrun ended with code {code} after {minutes} minutes"
            " and no worker left a result: not all nodes were there in time, or a worker was killed; the next attempt continues from the last"
            " checkpoint. If it happens again, look at the log and at the memory limit"
        )
    raise StageFailure(
        FailureClass.BUG,
        f"torchrun ended with code {code} and {len(results)} of {job.gpus_per_node} workers left a result; a"
        " worker that is killed leaves none: see the log, and look at the memory limit",
    )


def root_cause(results: Path, plan_digest: str) -> StageFailure:
    """The cause of the end of training, from the results that the workers of all nodes left.

    A worker that fails takes the others down: an interruption says nothing where another one says more.
    """
    said = [
        result.failure
        for folder in sorted(results.glob(_WORKERS.format("*")))
        for result in _results(folder, plan_digest)
        if result.failure
    ]
    first = _first_cause(said)
    return StageFailure(first.failure_class, first.message)


def _first_cause(failures: list[Failure]) -> Failure:
    return min(failures, key=lambda failure: failure.failure_class is FailureClass.INTERRUPTED)


def workers_folder(workspace: Path, node: int) -> Path:
    """Where each worker of a node leaves its StageResult as rank-<n>.json."""
    return workspace / "results" / _WORKERS.format(node)


def node_rank(environ: Mapping[str, str]) -> int:
    """The rank of this node."""
    return int(environ.get("PET_NODE_RANK", "0"))


def _command(job: ResolvedJob, environ: Mapping[str, str]) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={job.gpus_per_node}"]
    command.append(f"--shutdown-timeout={_SHUTDOWN_SECONDS}")
    if "PET_MASTER_ADDR" in environ:
        command.append(f"--rdzv-conf=timeout={_MEETING_SECONDS}")
    else:
        command.append("--standalone")
    return [*command, "-m", "tuneyard_trainer.worker"]


def _run(context: StageContext, command: list[str]) -> int:
    threads = max(1, usable_cores() // context.job.gpus_per_node)
    environ = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, env=environ)
    is_told = False
    while True:
        try:
            return process.wait(timeout=_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if context.stop and not is_told:
                # torchrun passes it on to the workers, which write a checkpoint and leave.
                process.terminate()
                is_told = True


def _results(folder: Path, plan_digest: str) -> list[StageResult]:
    results = []
    for path in sorted(folder.glob("rank-*.json")):
        try:
            result = StageResult.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        if result.plan_digest == plan_digest and result.stage is Stage.TRAIN:
            results.append(result)
    return results
