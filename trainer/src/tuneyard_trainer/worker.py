# SPDX-License-Identifier: Apache-2.0
"""One process of a distributed training, started by torchrun: `python -m tuneyard_trainer.worker`."""

import os
import signal
import sys
import traceback

from tuneyard_api.planner import digest_of
from tuneyard_api.pod_contract import Stage, StageResult

from tuneyard_trainer import durable
from tuneyard_trainer.failures import StageFailure, classify, exit_code
from tuneyard_trainer.launch import workers_folder
from tuneyard_trainer.progress import Board, served
from tuneyard_trainer.results import encode
from tuneyard_trainer.stages import StageContext, StopRequest, read_job
from tuneyard_trainer.surroundings import Surroundings, at_micro_batch
from tuneyard_trainer.train import train_here


def main() -> int:
    """Trains, leaves the result for the stage, and returns the exit code."""
    surroundings = Surroundings.of(os.environ)
    rank = int(os.environ["RANK"])
    job = read_job(surroundings.job_file)
    digest = digest_of(job)
    stop = StopRequest(raises=False)
    signal.signal(signal.SIGTERM, stop)
    board = Board(Stage.TRAIN, is_quiet=rank > 0)
    context = StageContext(
        at_micro_batch(job, surroundings.micro_batch_size),
        digest,
        surroundings.workspace,
        surroundings.model_cache,
        board,
        stop,
        surroundings.port,
    )
    result = StageResult(stage=Stage.TRAIN, outcome="Succeeded", plan_digest=digest)
    try:
        with served(board, surroundings.port if rank == 0 else None):
            facts = train_here(context)
        if rank == 0:
            result = result.model_copy(update={"facts": facts.model_dump(mode="json", exclude_none=True)})
    except Exception as error:  # noqa: BLE001  every end must be told
        if not isinstance(error, StageFailure):
            traceback.print_exception(error)
        result = result.model_copy(update={"outcome": "Failed", "failure": classify(error)})
    local_rank = os.environ["LOCAL_RANK"]
    durable.write_file(workers_folder(surroundings.workspace) / f"rank-{local_rank}.json", encode(result))
    return exit_code(result.failure)


if __name__ == "__main__":
    sys.exit(main())
