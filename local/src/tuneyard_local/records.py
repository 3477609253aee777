# SPDX-License-Identifier: Apache-2.0
"""The processes of a cluster: started apart from us, written down, and ended only when they are surely ours.

Three things prove that a process id is still the process that we started: the start time in /proc, the program file,
and a marker in its environment that names the cluster's folder. The marker also finds what was started
but not yet written down when `up` was killed, and what our processes started themselves (shims).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tuneyard_local.errors import ClusterError
from tuneyard_local.progress import tail, wait_until

MARKER = "TUNEYARD_CLUSTER_FOLDER"
STANDARD_ERROR = 2
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Record:
    """One process as it was started: enough to know it again and to start it again."""

    name: str
    argv: tuple[str, ...]
    namespaces: str | None
    """The name of the process whose network and mount namespaces it lives in; None for the machine's own."""
    exe: str
    pid: int
    started: int
    """Clock ticks since boot, field 22 of /proc/PID/stat."""


def start_ticks(pid: int) -> int | None:
    """When a process started, in ticks since boot; None when it is gone or only waits to be reaped.

    A first thread that is a zombie does not say that its process has ended: others may still hold its ports.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        is_gone = state in {"Z", "X"} and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if is_gone else int(fields[18])


def program_file(pid: int) -> str | None:
    """The file that a process runs; None when it is gone or we may not read it."""
    try:
        return str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(" (deleted)")
    except OSError:
        return None


def is_alive(record: Record) -> bool:
    """Whether the recorded process still runs, and not another one under its number."""
    return start_ticks(record.pid) == record.started and program_file(record.pid) == record.exe


def marked_processes(folder: Path) -> list[int]:
    """All processes that carry the marker of a cluster's folder, whoever started them."""
    marker = f"{MARKER}={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if marker in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def _inherited_files() -> list[int]:
    """Open files beyond the standard three that were given to us and would be passed on."""
    found = []
    for entry in list(Path("/proc/self/fd").iterdir()):
        number = int(entry.name)
        with contextlib.suppress(OSError):  # The descriptor of the listing itself is closed by now.
            if number > STANDARD_ERROR and os.get_inheritable(number):
                found.append(number)
    return found


def end_processes(pids: Iterable[int], patience_seconds: float = 5.0) -> None:
    """SIGTERM, then SIGKILL for what is still there after `patience_seconds`; returns when all are gone."""
    waiting = {pid: ticks for pid in pids if (ticks := start_ticks(pid)) is not None}
    for number, seconds in ((signal.SIGTERM, patience_seconds), (signal.SIGKILL, 10.0)):
        for pid, ticks in waiting.items():
            if start_ticks(pid) == ticks:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        end = time.monotonic() + seconds
        while waiting and time.monotonic() < end:
            for pid in list(waiting):
                _reap(pid)
                if start_ticks(pid) != waiting[pid]:
                    del waiting[pid]
            time.sleep(0.02 if waiting else 0)
    if waiting:
        raise ClusterError(f"processes {sorted(waiting)} do not end, not even by SIGKILL")


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


class Processes:
    """The recorded processes of one cluster."""

    def __init__(self, records: Path, logs: Path, marker: Path) -> None:
        self._records, self._logs, self._marker = records, logs, marker

    def log(self, name: str) -> Path:
        """The file that a process writes its output to."""
        return self._logs / f"{name}.log"

    def records(self) -> dict[str, Record]:
        """All records by name, of living processes and of dead ones."""
        if not self._records.is_dir():
            return {}
        found = {}
        for path in sorted(self._records.glob("*.json")):
            fields = json.loads(path.read_text())
            found[path.stem] = Record(**{**fields, "argv": tuple(fields["argv"])})
        return found

    def is_alive(self, name: str) -> bool:
        """Whether the process of that name runs."""
        record = self.records().get(name)
        return record is not None and is_alive(record)

    def start(
        self,
        name: str,
        argv: Iterable[str | Path],
        namespaces: str | None = None,
        becomes: str | None = None,
    ) -> Record:
        """Start a program apart from us (own session, output to its log) and write it down.

        `namespaces` names the recorded process whose network and mount namespaces it shall share; `becomes`
        is the program that a wrapper such as unshare turns into, when its own is only a beginning.
        A process of that name that runs already is left alone.
        """
        known = self.records().get(name)
        if known is not None and is_alive(known):
            return known
        words = [str(word) for word in argv]
        exe = os.path.realpath(becomes or words[0])
        command = [*self.enter(namespaces), *words] if namespaces is not None else words
        self._logs.mkdir(parents=True, exist_ok=True)
        self._records.mkdir(parents=True, exist_ok=True)
        output = os.open(self.log(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            pid = os.posix_spawn(
                command[0],
                command,
                self._environment(),
                setsid=True,
                setsigdef=[signal.SIGINT, signal.SIGPIPE],
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                    (os.POSIX_SPAWN_DUP2, output, 2),
                    # The process outlives us, and must not keep a lock or a pipe of our caller open.
                    *((os.POSIX_SPAWN_CLOSE, number) for number in _inherited_files()),
                ],
            )
        finally:
            os.close(output)

        def runs_program() -> bool:
            if start_ticks(pid) is None:
                raise ClusterError(f"{name} ended at once; its log ends:\n{tail(self.log(name))}")
            return program_file(pid) == exe

        wait_until(f"{name} to start", runs_program, 10, pause=0.01)
        record = Record(name, tuple(words), namespaces, exe, pid, start_ticks(pid) or 0)
        path = self._records / f"{name}.json"
        path.with_suffix(".new").write_text(json.dumps(asdict(record), indent=1))
        path.with_suffix(".new").rename(path)
        return record

    def enter(self, name: str) -> list[str]:
        """The words that run a program in the network and mount namespaces of a recorded process."""
        holder = self.records().get(name)
        if holder is None or not is_alive(holder):
            raise ClusterError(f"{name}, whose namespaces are needed, is not running")
        spaces = f"/proc/{holder.pid}/ns"
        return ["/usr/bin/nsenter", f"--net={spaces}/net", f"--mount={spaces}/mnt", "--"]

    def _environment(self) -> dict[str, str]:
        # Our own variables are left out: proxies, KUBECONFIG and the like would lead the programs elsewhere.
        return {"PATH": SEARCH_PATH, "HOME": str(self._marker), "LANG": "C.UTF-8", MARKER: str(self._marker)}

    def stop(self, *names: str, patience_seconds: float = 5.0) -> None:
        """End the named processes; their records stay, so that `start_again` can bring them back."""
        records = self.records()
        end_processes(
            [records[n].pid for n in names if n in records and is_alive(records[n])], patience_seconds
        )

    def kill(self, name: str) -> None:
        """SIGKILL one process, as a crash would end it."""
        record = self.records()[name]
        if is_alive(record):
            os.kill(record.pid, signal.SIGKILL)
            end_processes([record.pid])

    def start_again(self, name: str) -> Record:
        """Start a stopped process just as it was started before."""
        records = self.records()
        if name not in records:
            raise ClusterError(f"no process {name!r} here; there are: {', '.join(records)}")
        return self.start(name, records[name].argv, records[name].namespaces, records[name].exe)

    def require_alive(self) -> None:
        """Raise ClusterError with the log's end when any recorded process has died."""
        for name, record in self.records().items():
            if not is_alive(record):
                raise ClusterError(f"{name} has died; its log {self.log(name)} ends:\n{tail(self.log(name))}")

    def stop_all(self, patience_seconds: float = 0.5) -> None:
        """End every process of the cluster, written down or only marked."""
        self.stop(*self.records(), patience_seconds=patience_seconds)
        end_processes(marked_processes(self._marker), patience_seconds)
