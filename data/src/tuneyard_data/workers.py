# SPDX-License-Identifier: Apache-2.0
"""Does the same with many batches in several processes; the results come in the order of the batches.

The processes are copies of this one (fork), so that nothing is loaded again. Few batches are done here, and all of them
where there is one core, or no fork that is safe (macOS).
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

_ALONE = 5
"""Batches that are done before it is worth while to start processes."""
_MOST = 4
"""Processes, at most: each needs some 100 MB."""
_AHEAD = 2
"""Batches for each process that wait or are being done while a result is taken."""

Task = TypeVar("Task")
Result = TypeVar("Result")


class Workers(Generic[Task, Result]):
    """Processes that do `work`, which need not be picklable as batches and results must be."""

    def __init__(self, work: Callable[[Task], Result]) -> None:
        self._work = work
        self._count = _processes()
        self._done = 0
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        """Starts nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the processes, which finish no more than the batch that each has begun."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def results(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """The result of each task; what `work` raises is raised here.

        Raises:
            MemoryError: if a process was killed from outside.
        """
        waiting = deque[Future[Result]]()
        for task in tasks:
            if self._count == 1 or self._done < _ALONE:
                self._done += 1
                yield self._work(task)
                continue
            waiting.append(self._started().submit(_do, task))
            if len(waiting) > self._count * _AHEAD:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._count, multiprocessing.get_context("fork"), _begin, (self._work,)
            )
        return self._pool


def _result(future: "Future[Result]") -> Result:
    try:
        return future.result()
    except BrokenProcessPool:
        raise MemoryError(
            "a process that reads records was killed, most likely because the memory was used up"
        ) from None


def _processes() -> int:
    if sys.platform != "linux":
        return 1
    # What a pod may use can be less than what it sees.
    said = os.environ.get("RAYON_NUM_THREADS", "")
    return max(1, min(_MOST, int(said) if said.isdigit() else len(os.sched_getaffinity(0))))


_work_here: Callable[[Any], Any] | None = None
"""In a process: what it does."""


def _begin(work: Callable[[Any], Any]) -> None:
    """The beginning of a process."""
    global _work_here  # noqa: PLW0603  a process does one work
    _work_here = work
    # What this process and its parent have in common stays so: the collector would write into it.
    gc.freeze()
    # Threads of Rust were not copied.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # The parent is told to stop, and stops its processes.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends the process where its parent was killed: nobody would send it a batch, or an end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _do(task: Any) -> Any:
    if _work_here is None:
        raise RuntimeError("the process has not begun")
    return _work_here(task)
