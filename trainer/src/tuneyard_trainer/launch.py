# SPDX-License-Identifier: Apache-2.0
"""Starts the processes of a distributed training with torchrun, and makes one outcome of theirs.

torchrun reads PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR and so on by itself; without a master address, as on a
laptop, all processes are here.
"""

import os
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path

from pydantic import ValidationError
from tuneyard_api.pod_contract import FailureClass, ResolvedJob, Stage, StageResult, TrainFacts

from tuneyard_trainer.failures import Interrupted, StageFailure
from tuneyard_trainer.stages import StageContext
from tuneyard_trainer.surroundings import usable_cores

_POLL_SECONDS = 0.5


def train_distributed(context: StageContext) -> TrainFacts:
    """Runs one worker per GPU of this node and returns the first one's facts.

    Raises:
        StageFailure: of the worker that failed for a reason of its own.
    """
    folder = workers_folder(context.workspace)
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob("rank-*.json"):
        left_over.unlink()
    code = _run(context, _command(context.job, os.environ))
    results = _results(folder, context.plan_digest)
    # A worker that fails takes the others down: their end by SIGTERM says nothing.
    failures = sorted(
        (r.failure for r in results if r.failure), key=lambda f: f.failure_class is FailureClass.INTERRUPTED
    )
    if failures:
        raise StageFailure(failures[0].failure_class, failures[0].message)
    if code == 0 and len(results) == context.job.gpus_per_node:
        facts = next((r.facts for r in results if r.facts), None)
        if facts is not None:
            return TrainFacts.model_validate(facts)
    if context.stop:
        raise Interrupted(
            "stopped by SIGTERM before the workers could begin; goes on from the last checkpoint"
        )
    raise StageFailure(
        FailureClass.BUG,
        f"torchrun ended with code {code} and {len(results)} of {context.job.gpus_per_node} workers left a result; a"
        " worker that is killed leaves none: see the log, and look at the memory limit",
    )


def workers_folder(workspace: Path) -> Path:
    """Where each worker leaves its StageResult as rank-<n>.json."""
    return workspace / "results" / "workers"


def _command(job: ResolvedJob, environ: MutableMapping[str, str]) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={job.gpus_per_node}"]
    if "PET_MASTER_ADDR" not in environ:
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
