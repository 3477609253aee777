# SPDX-License-Identifier: Apache-2.0
"""Shows progress to a person: one line per step with the seconds since the start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tuneyard_local.errors import ClusterError

REMIND_SECONDS = 15.0
"""Seconds after which a running step prints that it is still running."""

GIB = 1 << 30


class Progress:
    """Prints `  12.3s text` lines to standard error, so that standard output stays for answers."""

    def __init__(self, is_quiet: bool = False) -> None:
        self._start = time.monotonic()
        self._is_quiet = is_quiet

    def say(self, text: str) -> None:
        """Print one line."""
        if not self._is_quiet:
            print(f"{time.monotonic() - self._start:6.1f}s {text}", file=sys.stderr, flush=True)

    def run(
        self,
        what: str,
        argv: Sequence[str | Path],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Run a long program, its output into `log`; raises ClusterError with the log's end when it fails."""
        self.say(what)
        start = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        with (
            log.open("wb") as stream,
            subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
            ) as process,
        ):
            while True:
                try:
                    code = process.wait(timeout=REMIND_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    self.say(f"{what}: {time.monotonic() - start:.0f} s so far")
        if code:
            raise ClusterError(
                f"{what}: failed with status {code}; its log is {log}, which ends:\n{tail(log)}"
            )


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, or a word that there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def wait_until(what: str, is_done: Callable[[], bool], seconds: float, pause: float = 0.1) -> None:
    """Ask until the answer is yes; raises ClusterError after `seconds`."""
    end = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > end:
            raise ClusterError(f"gave up after {seconds:.0f} s waiting for {what}")
        time.sleep(pause)


def available_memory() -> int:
    """Bytes that programs can still get without swapping (MemAvailable)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def require_room(what: str, folder: Path, disk_gib: float, memory_gib: float) -> None:
    """Raise ClusterError unless the disk of `folder` and the memory have that many GiB free."""
    folder.mkdir(parents=True, exist_ok=True)
    disk, memory = shutil.disk_usage(folder).free / GIB, available_memory() / GIB
    problems = []
    if disk < disk_gib:
        problems.append(
            f"{what} needs {disk_gib:.1f} GiB of disk in {folder} (got {disk:.1f}); try freeing some"
        )
    if memory < memory_gib:
        problems.append(
            f"{what} needs {memory_gib:.1f} GiB of free memory (got {memory:.1f}); try ending something"
        )
    if problems:
        raise ClusterError("\n".join(problems))
