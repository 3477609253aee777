# SPDX-License-Identifier: Apache-2.0
"""Turns whatever went wrong into one class for machines and one sentence for people.

A stage raises StageFailure where it knows what is wrong, and DataRefused comes from what reads its data; everything else
is classified here by its type.
"""

import errno
import sys
import traceback
from collections.abc import Callable

from tuneyard_api.pod_contract import EXIT_CODES, MAX_MESSAGE, Failure, FailureClass
from tuneyard_api.problems import clip
from tuneyard_data.refused import DataRefused

from tuneyard_trainer.pod.progress import Board


class StageFailure(Exception):  # noqa: N818  named after the contract's Failure
    """A stage can't continue, for a known reason."""

    def __init__(self, failure_class: FailureClass, message: str) -> None:
        super().__init__(message)
        self.failure_class = failure_class


class Interrupted(StageFailure):
    """SIGTERM came, and everything worth keeping is saved."""

    def __init__(self, message: str) -> None:
        super().__init__(FailureClass.INTERRUPTED, message)


def bad_input(message: str) -> StageFailure:
    """A failure that only the author of the job or of the data can fix."""
    return StageFailure(FailureClass.BAD_INPUT, message)


def classify(error: BaseException) -> Failure:
    """The failure for `error`; the message of an unknown error ends with its last lines of code."""
    return Failure(failure_class=_class_of(error), message=clip(_message_of(error), MAX_MESSAGE))


def told(error: BaseException, board: Board) -> Failure:
    """The failure for `error` with the end of the log; a traceback is printed for an error that is not ours."""
    if not is_explained(error):
        text = "".join(traceback.format_exception(error))
        print(text, end="", file=sys.stderr, flush=True)
        board.keep(text)
    return classify(error).model_copy(update={"last_lines": board.last_lines or None})


def exit_code(failure: Failure | None) -> int:
    """The exit code of an outcome; 0 is success."""
    return 0 if failure is None else EXIT_CODES[failure.failure_class]


def is_explained(error: BaseException) -> bool:
    """Whether we raised `error` ourselves: its message says everything, and no traceback is due."""
    return isinstance(error, (StageFailure, DataRefused))


def _class_of(error: BaseException) -> FailureClass:
    if isinstance(error, StageFailure):
        return error.failure_class
    return next((failure_class for failure_class, matches in _SIGNS if matches(error)), FailureClass.BUG)


def _is_out_of_memory(error: BaseException) -> bool:
    # Matched by name, because not every stage can import PyTorch.
    is_torch = _is_named(error, "OutOfMemoryError") or "DefaultCPUAllocator: can't allocate" in str(error)
    return is_torch or isinstance(error, MemoryError) or _has_number(error, errno.ENOMEM)


def _is_disk_full(error: BaseException) -> bool:
    # safetensors wraps errors of the operating system in its own exception.
    in_rust = _is_named(error, "SafetensorError") and "os error 28" in str(error)
    return in_rust or _has_number(error, errno.ENOSPC, errno.EDQUOT)


_SIGNS: tuple[tuple[FailureClass, Callable[[BaseException], bool]], ...] = (
    (FailureClass.BAD_INPUT, lambda error: isinstance(error, DataRefused)),
    (FailureClass.INTERRUPTED, lambda error: isinstance(error, KeyboardInterrupt)),
    (FailureClass.OUT_OF_MEMORY, _is_out_of_memory),
    (FailureClass.DISK_FULL, _is_disk_full),
    (
        FailureClass.PERMISSION_DENIED,
        lambda error: _has_number(error, errno.EACCES, errno.EPERM, errno.EROFS),
    ),
    (FailureClass.UPSTREAM, lambda error: isinstance(error, (ConnectionError, TimeoutError))),
)


def _has_number(error: BaseException, *numbers: int) -> bool:
    return isinstance(error, OSError) and error.errno in numbers


def _is_named(error: BaseException, name: str) -> bool:
    return any(cls.__name__ == name for cls in type(error).__mro__)


_ADVICE = {
    FailureClass.OUT_OF_MEMORY: "try a smaller training.microBatchSize or maxSequenceLength,"
    " training.gradientCheckpointing: true, or more memory",
    FailureClass.DISK_FULL: "try a larger workspace.sizeGiB or a smaller checkpoint.keep",
    FailureClass.PERMISSION_DENIED: "try a volume that the pod's user may write, or fsGroup",
}


def _message_of(error: BaseException) -> str:
    if is_explained(error):
        return str(error)
    text = f"{type(error).__name__}: {error}".strip()
    failure_class = _class_of(error)
    if failure_class is not FailureClass.BUG:
        advice = _ADVICE.get(failure_class)
        return f"{clip(text, MAX_MESSAGE - 200)}; {advice}" if advice else text
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(
        f"{frame.name} ({_short(frame.filename)}:{frame.lineno})" for frame in reversed(frames)
    )
    return f"{clip(text, MAX_MESSAGE - 500)} in {where}" if where else text


def _short(path: str) -> str:
    return "/".join(path.split("/")[-2:])
