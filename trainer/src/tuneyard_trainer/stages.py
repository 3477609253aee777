# SPDX-License-Identifier: Apache-2.0
"""Runs one stage under the pod contract: one result, one exit code, whatever happens inside.

A stage is a function of a StageContext that returns its facts or raises. All that stages have in common is here:
reading job.json, returning an earlier success at once, SIGTERM, the progress port, classification, the result.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Self

from pydantic import BaseModel, ValidationError
from tuneyard_api.planner import digest_of
from tuneyard_api.pod_contract import GRACE_SECONDS, Failure, ResolvedJob, Stage, StageResult

from tuneyard_trainer.failures import Interrupted, StageFailure, bad_input, classify, exit_code
from tuneyard_trainer.progress import Board, served
from tuneyard_trainer.results import earlier_success, encode, write_result
from tuneyard_trainer.surroundings import Surroundings, at_micro_batch, settle_libraries

RESULT_SECONDS = 10
"""Kept back of a pod's grace after SIGTERM: the result must be written before the kill."""


class StopRequest:
    """Whether SIGTERM came. Stages that have nothing to save are raised out of; training looks and saves."""

    def __init__(self, *, raises: bool) -> None:
        self._raises = raises
        self._event = threading.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """The signal's handler."""
        is_first = not self._event.is_set()
        self._event.set()
        if self._raises and is_first:
            raise Interrupted(
                "stopped by SIGTERM; nothing was kept, and the stage starts again from its beginning"
            )


@dataclass(frozen=True)
class StageContext:
    """All that a stage may know."""

    job: ResolvedJob
    plan_digest: str
    workspace: Path
    model_cache: Path
    board: Board
    stop: StopRequest
    port: int | None

    @classmethod
    def of(cls, surroundings: Surroundings, job: ResolvedJob, board: Board, stop: StopRequest) -> Self:
        """What a process of a pod knows: its job at the micro batch that is left to it, and where things are.

        Raises:
            ValueError: as `at_micro_batch`.
        """
        return cls(
            at_micro_batch(job, surroundings.micro_batch_size),
            digest_of(job),
            surroundings.workspace,
            surroundings.model_cache,
            board,
            stop,
            surroundings.port,
        )


StageFunction = Callable[[StageContext], BaseModel]


def run_stage(stage: Stage, surroundings: Surroundings) -> int:
    """Runs `stage` and returns the exit code; the result is in the termination log and in the workspace."""
    settle_libraries(os.environ, surroundings.workspace, stage)
    board = Board(stage)
    digest = ""
    try:
        job = read_job(surroundings.job_file)
        digest = digest_of(job)
        if earlier := _done_before(stage, surroundings.workspace, job, digest):
            board.say(f"{stage}: already done for this plan")
            surroundings.termination_log.write_bytes(encode(earlier))
            return 0
        stop = StopRequest(raises=stage is not Stage.TRAIN)
        context = StageContext.of(surroundings, job, board, stop)
        with _told_to_stop(stop, _patience(stage), lambda: _give_up(stage, digest, surroundings)):
            # Training over several processes serves the port from its first process.
            own_port = None if stage is Stage.TRAIN and is_distributed(job) else surroundings.port
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
        result = _failed(stage, digest, error)
    board.say(_last_words(result))
    try:
        _tell(result, surroundings)
    except OSError as error:
        # A full disk keeps the result out of the workspace; a success that is not kept is none.
        result = result if result.failure else _failed(stage, digest, error)
        surroundings.termination_log.write_bytes(encode(result))
    return exit_code(result.failure)


def read_job(path: Path) -> ResolvedJob:
    """job.json.

    Raises:
        StageFailure: BadInput, naming every field that is wrong.
    """
    try:
        return ResolvedJob.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise bad_input(f"{path}: there is no resolved job; try TUNEYARD_JOB_FILE") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise bad_input(f"{path}: this is no resolved job of schema version 1: {problems}") from None


def is_distributed(job: ResolvedJob) -> bool:
    """Whether training is spread over several processes."""
    return job.nodes * job.gpus_per_node > 1


def _done_before(stage: Stage, workspace: Path, job: ResolvedJob, digest: str) -> StageResult | None:
    """The result of earlier work that need not be done again; what was prepared may have been for another plan."""
    if stage is not Stage.PREPARE:
        return earlier_success(workspace, stage, digest)
    from tuneyard_trainer.prepared import earlier_preparation  # noqa: PLC0415  NumPy

    earlier = earlier_preparation(workspace, job)
    return earlier and earlier.model_copy(update={"plan_digest": digest})


def _function_of(stage: Stage) -> StageFunction:
    """Imported when needed: prepare and publish must not pay for PyTorch."""
    if stage is Stage.PREPARE:
        from tuneyard_trainer.prepare import prepare  # noqa: PLC0415

        return prepare
    if stage is Stage.TRAIN:
        from tuneyard_trainer.train import train  # noqa: PLC0415

        return train
    from tuneyard_trainer.publish import publish  # noqa: PLC0415

    return publish


def _failed(stage: Stage, digest: str, error: BaseException) -> StageResult:
    if not isinstance(error, StageFailure):
        traceback.print_exception(error, file=sys.stderr)
    return StageResult(stage=stage, outcome="Failed", plan_digest=digest, failure=classify(error))


def _tell(result: StageResult, surroundings: Surroundings) -> None:
    is_kept = surroundings.node_rank == 0
    write_result(result, surroundings.workspace, surroundings.termination_log, is_kept=is_kept)


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


def _patience(stage: Stage) -> int:
    """How many seconds after SIGTERM a stage that has not ended is given up."""
    return GRACE_SECONDS[stage] - RESULT_SECONDS


def _give_up(stage: Stage, digest: str, surroundings: Surroundings) -> None:
    """The result that is still true when a step outlasts the grace period, and a hard end."""
    failure: Failure = classify(
        Interrupted(
            f"stopped by SIGTERM in a step of more than {_patience(stage)} s; goes on from the last checkpoint"
        )
    )
    result = StageResult(stage=stage, outcome="Failed", plan_digest=digest, failure=failure)
    _tell(result, surroundings)
    os._exit(exit_code(failure))
