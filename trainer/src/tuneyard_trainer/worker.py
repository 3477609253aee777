# SPDX-License-Identifier: Apache-2.0
"""One process of a distributed training, started by torchrun: `python -m tuneyard_trainer.worker`."""

import os
import signal
import sys

from tuneyard_api import durable
from tuneyard_api.pod_contract import Stage, StageResult
from tuneyard_api.problems import clip

from tuneyard_trainer.pod.context import StageContext, StopRequest, read_job
from tuneyard_trainer.pod.environment import PodEnvironment
from tuneyard_trainer.pod.failures import Interrupted, StageFailure, exit_code, told
from tuneyard_trainer.pod.progress import Board, served
from tuneyard_trainer.pod.results import encode
from tuneyard_trainer.stages.train import train_here
from tuneyard_trainer.training.launch import workers_folder


def main() -> int:
    """Trains, leaves the result for the stage, and returns the exit code."""
    environment = PodEnvironment.of(os.environ)
    rank = int(os.environ["RANK"])
    job = read_job(environment.job_file)
    stop = StopRequest(raises=False)
    signal.signal(signal.SIGTERM, stop)
    board = Board(Stage.TRAIN, is_quiet=rank > 0)
    context = StageContext.of(environment, job, board, stop)
    result = StageResult(stage=Stage.TRAIN, outcome="Succeeded", plan_digest=context.plan_digest)
    try:
        with served(board, environment.port if rank == 0 else None):
            facts = train_here(context)
        result = result.model_copy(update={"facts": facts.model_dump(mode="json", exclude_none=True)})
    except Exception as failed:  # noqa: BLE001  every end must be told
        failure = told(_as_told(failed), board)
        result = result.model_copy(update={"outcome": "Failed", "failure": failure})
    result = result.model_copy(update={"times": board.read().times})
    local_rank = os.environ["LOCAL_RANK"]
    folder = workers_folder(environment.workspace, environment.node_rank)
    durable.write_file(folder / f"rank-{local_rank}.json", encode(result))
    return exit_code(result.failure)


def _as_told(error: Exception) -> Exception:
    """The error to report: if another process was lost, this one was only interrupted, and training resumes later."""
    from tuneyard_trainer.model.world import is_loss_of_another  # noqa: PLC0415  seconds

    if isinstance(error, StageFailure) or not is_loss_of_another(error):
        return error
    return Interrupted(
        f"another process of the training is gone ({clip(str(error), 300)}); the next attempt continues from the last checkpoint"
    )


if __name__ == "__main__":
    sys.exit(main())
