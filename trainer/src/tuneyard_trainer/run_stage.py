# SPDX-License-Identifier: Apache-2.0
"""Runs one stage under the pod contract: one result, one exit code, whatever happens inside.

A stage is a function of a StageContext that returns its facts or raises. This module has all that stages share:
reading job.json, returning an earlier success at once, SIGTERM, the progress port, classification, the result.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pydantic import BaseModel
from tuneyard_api.planner import digest_of
from tuneyard_api.pod_contract import ResolvedJob, Stage, StageResult

from tuneyard_trainer.pod.context import StageContext, StopRequest, is_distributed, patience, read_job
from tuneyard_trainer.pod.environment import PodEnvironment, settle_libraries
from tuneyard_trainer.pod.failures import Interrupted, exit_code, told
from tuneyard_trainer.pod.progress import Board, served
from tuneyard_trainer.pod.results import earlier_success, encode, write_result

StageFunction = Callable[[StageContext], BaseModel]


def run_stage(stage: Stage, environment: PodEnvironment) -> int:
    """Runs `stage` and returns the exit code; the result is in the termination log and in the workspace."""
    settle_libraries(os.environ, environment.workspace, stage)
    board = Board(stage)
    digest = ""
    try:
        job = read_job(environment.job_file)
        digest = digest_of(job)
        if earlier := _done_before(stage, environment.workspace, job, digest):
            board.say(f"{stage}: already done for this plan")
            environment.termination_log.write_bytes(encode(_with_times(earlier, board)))
            return 0
        stop = StopRequest(raises=stage is not Stage.TRAIN)
        context = StageContext.of(environment, job, board, stop)
        with _told_to_stop(stop, patience(stage), lambda: _give_up(board, digest, environment)):
            # Training over several processes serves the port from its first process.
            own_port = None if stage is Stage.TRAIN and is_distributed(job) else environment.port
            with served(board, own_port):
                facts = _function_of(stage)(context)
                board.update(phase="done")
        result = StageResult(
            stage=stage,
            outcome="Succeeded",
            plan_digest=digest,
            facts=facts.model_dump(mode="json", exclude_none=True),
        )
    except BaseException as error:  # noqa: BLE001  every end must be told, Ctrl-C included
        result = _failed(stage, digest, error, board)
    result = _with_times(result, board)
    board.say(_last_words(result))
    try:
        _tell(result, environment)
    except OSError as error:
        # On a full disk the result cannot be stored in the workspace, and a success that is not stored does not count.
        result = result if result.failure else _with_times(_failed(stage, digest, error, board), board)
        environment.termination_log.write_bytes(encode(result))
    return exit_code(result.failure)


def _done_before(stage: Stage, workspace: Path, job: ResolvedJob, digest: str) -> StageResult | None:
    """The result of earlier work that can be reused; `prepare` may reuse the work of another plan."""
    if stage is not Stage.PREPARE:
        return earlier_success(workspace, stage, digest)
    from tuneyard_trainer.workspace.prepared import earlier_preparation  # noqa: PLC0415  NumPy

    earlier = earlier_preparation(workspace, job)
    return earlier and earlier.model_copy(update={"plan_digest": digest})


def _function_of(stage: Stage) -> StageFunction:
    """The function of a stage, imported when needed: prepare and publish must not pay for PyTorch."""
    if stage is Stage.PREPARE:
        from tuneyard_trainer.stages.prepare import prepare  # noqa: PLC0415

        return prepare
    if stage is Stage.TRAIN:
        from tuneyard_trainer.stages.train import train  # noqa: PLC0415

        return train
    from tuneyard_trainer.stages.publish import publish  # noqa: PLC0415

    return publish


def _failed(stage: Stage, digest: str, error: BaseException, board: Board) -> StageResult:
    failure = told(error, board)
    return StageResult(stage=stage, outcome="Failed", plan_digest=digest, failure=failure)


def _with_times(result: StageResult, board: Board) -> StageResult:
    return result.model_copy(update={"times": board.read().times})


def _tell(result: StageResult, environment: PodEnvironment) -> None:
    is_kept = environment.node_rank == 0
    write_result(result, environment.workspace, environment.termination_log, is_kept=is_kept)


def _last_words(result: StageResult) -> str:
    if result.failure is None:
        return f"{result.stage}: succeeded"
    return f"{result.stage}: {result.failure.failure_class}: {result.failure.message}"


@contextmanager
def _told_to_stop(stop: StopRequest, seconds: float, give_up: Callable[[], None]) -> Iterator[None]:
    """SIGTERM or Ctrl-C sets the request; if the stage has not ended `seconds` later, `give_up` ends it."""
    timer = threading.Timer(seconds, give_up)
    timer.daemon = True

    def handle(number: int, frame: FrameType | None) -> None:
        if not stop:
            timer.start()
        stop(number, frame)

    # Outside the main thread there are no signals to handle.
    is_main = threading.current_thread() is threading.main_thread()
    previous = [(s, signal.signal(s, handle)) for s in (signal.SIGTERM, signal.SIGINT)] if is_main else []
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in previous:
            signal.signal(number, handler)


def _give_up(board: Board, digest: str, environment: PodEnvironment) -> None:
    """Write the result Interrupted when a step outlasts the grace period, and end the process at once."""
    stage = board.read().stage
    late = Interrupted(
        f"stopped by SIGTERM in a step of more than {patience(stage)} s; the next attempt continues from the last checkpoint"
    )
    failure = told(late, board)
    result = StageResult(stage=stage, outcome="Failed", plan_digest=digest, failure=failure)
    _tell(_with_times(result, board), environment)
    os._exit(exit_code(failure))
