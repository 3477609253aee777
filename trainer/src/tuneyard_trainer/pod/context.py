# SPDX-License-Identifier: Apache-2.0
"""The context of a stage: its job, its folders, its progress board, and the request to stop."""

import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Self

from pydantic import ValidationError
from tuneyard_api.planner import digest_of
from tuneyard_api.pod_contract import GRACE_SECONDS, ResolvedJob, Stage

from tuneyard_trainer.pod.environment import PodEnvironment, as_chosen
from tuneyard_trainer.pod.failures import Interrupted, bad_input
from tuneyard_trainer.pod.progress import Board

RESULT_SECONDS = 10
"""Part of the grace period after SIGTERM that is reserved for writing the result before SIGKILL."""


class StopRequest:
    """Whether SIGTERM came.

    In stages with nothing to save, SIGTERM raises Interrupted. Training polls this flag, writes a checkpoint and exits.
    """

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
                "stopped by SIGTERM; the stage keeps nothing, and the next attempt starts from its beginning"
            )


@dataclass(frozen=True)
class StageContext:
    """The inputs of a stage."""

    job: ResolvedJob
    plan_digest: str
    workspace: Path
    model_cache: Path
    board: Board
    stop: StopRequest
    port: int | None
    attempt: int = 1
    """Number of this attempt of the stage."""

    @classmethod
    def of(cls, environment: PodEnvironment, job: ResolvedJob, board: Board, stop: StopRequest) -> Self:
        """The context of a process of a pod: its job as it was chosen for the pod, and its folders.

        Raises:
            ValueError: as `as_chosen`.
        """
        return cls(
            as_chosen(job, environment),
            digest_of(job),
            environment.workspace,
            environment.model_cache,
            board,
            stop,
            environment.port,
            environment.attempt,
        )


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


def patience(stage: Stage) -> int:
    """Seconds after SIGTERM until a stage that has not ended is killed."""
    return GRACE_SECONDS[stage] - RESULT_SECONDS
