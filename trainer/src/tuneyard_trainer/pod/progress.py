# SPDX-License-Identifier: Apache-2.0
"""Reports the progress of a stage live: on the port of the pod contract, and as lines in the log.

Best effort by design: nothing depends on it, and a port that is taken is a warning.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tuneyard_api.ledger import PhaseTimes
from tuneyard_api.pod_contract import MAX_LAST_LINES, Progress, Stage

LOG_INTERVAL_SECONDS = 5.0
"""Seconds between lines of the log; a terminal is redrawn four times a second instead."""
_TERMINAL_INTERVAL_SECONDS = 0.25
_LAST_LINES = 20
"""Lines of the log that a failure keeps."""


class _Watch:
    """Measures how long a process has been in each phase."""

    def __init__(self, phase: str) -> None:
        self._phase, self._since = phase, time.monotonic()
        self._seconds: dict[str, float] = {}
        self._saved = 0.0

    def enter(self, phase: str) -> None:
        now = time.monotonic()
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def saved(self) -> None:
        self.enter(self._phase)
        self._saved = self._seconds.get("training", 0.0)

    def take_over(self, times: PhaseTimes) -> None:
        self.enter(self._phase)
        self._seconds = dict(times.seconds)
        self._saved = times.seconds.get("training", 0.0) - times.unsaved_seconds

    def times(self) -> PhaseTimes:
        self.enter(self._phase)
        seconds = {phase: round(spent, 3) for phase, spent in self._seconds.items()}
        unsaved = self._seconds.get("training", 0.0) - self._saved
        return PhaseTimes(seconds=seconds, unsaved_seconds=round(unsaved, 3))


class Board:
    """The latest Progress of one stage; written by the stage, read by the port's threads."""

    def __init__(self, stage: Stage, *, is_quiet: bool = False) -> None:
        """A quiet board writes no lines, because one of several processes is enough."""
        self._is_quiet = is_quiet
        self._progress = Progress(stage=stage, phase="loading")
        self._lock = threading.Lock()
        self._announced: set[str] = set()
        self._last_line = 0.0
        self._is_terminal = sys.stdout.isatty()
        self._watch = _Watch(self._progress.phase)
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)

    def update(self, **changes: Any) -> None:
        """Changes fields of Progress, by their names in Python."""
        with self._lock:
            self._watch.enter(changes.get("phase", self._progress.phase))
            self._progress = self._progress.model_copy(update=changes)
            # Training, checkpoints and measurements alternate: each is announced once.
            is_new = self._progress.phase not in self._announced
            self._announced.add(self._progress.phase)
        self._show(now=time.monotonic(), must=is_new)

    def read(self) -> Progress:
        """The latest Progress, with the times until now."""
        with self._lock:
            return self._progress.model_copy(update={"times": self._watch.times()})

    def saved(self) -> None:
        """A checkpoint has kept everything that was trained before it."""
        with self._lock:
            self._watch.saved()

    def times_of(self, times: PhaseTimes | None) -> None:
        """Takes over the times of the process that did the stage's work, if it is another one than this."""
        if times is not None:
            with self._lock:
                self._watch.take_over(times)

    def keep(self, text: str | None) -> None:
        """Counts lines that somebody else has printed among the last ones."""
        self._lines.extend((text or "").splitlines())

    @property
    def last_lines(self) -> str:
        """The end of the log, at most MAX_LAST_LINES characters, and no line torn unless it is the only one."""
        text = "\n".join(self._lines)[-MAX_LAST_LINES:]
        is_torn = len(text) == MAX_LAST_LINES and "\n" in text
        return text.partition("\n")[2] if is_torn else text

    def say(self, line: str) -> None:
        """Prints a line for people, such as a warning."""
        self._lines.append(line)
        if not self._is_quiet:
            print(f"\r\x1b[K{line}" if self._is_terminal else line, flush=True)

    def _show(self, *, now: float, must: bool) -> None:
        interval = _TERMINAL_INTERVAL_SECONDS if self._is_terminal else LOG_INTERVAL_SECONDS
        if self._is_quiet or (not must and now - self._last_line < interval):
            return
        self._last_line = now
        line = describe(self.read())
        self._lines.append(line)
        print(
            f"\r\x1b[K{line}" if self._is_terminal else line,
            end="" if self._is_terminal else "\n",
            flush=True,
        )


def describe(progress: Progress) -> str:
    """`train: training 40/200, loss 2.3100, 1250 tokens/s, 95 s left`."""
    parts = [f"{progress.stage}: {progress.phase}"]
    if progress.of:
        parts[0] += f" {progress.step}/{progress.of}"
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.tokens_per_second is not None:
        parts.append(f"{progress.tokens_per_second:.0f} tokens/s")
    if progress.eta_seconds is not None:
        parts.append(f"{progress.eta_seconds} s left")
    return ", ".join(parts)


def to_prometheus(progress: Progress) -> str:
    """Prometheus' text format, version 0.0.4."""
    gauges = {
        "tuneyard_step": ("Number of steps done in this phase.", progress.step),
        "tuneyard_steps": ("Number of steps in this phase; 0 while it is unknown.", progress.of),
        "tuneyard_loss": ("Training loss in nats per learned token.", progress.loss),
        "tuneyard_tokens_per_second": ("Training speed in tokens per second.", progress.tokens_per_second),
        "tuneyard_eta_seconds": ("Estimated seconds left in this phase.", progress.eta_seconds),
    }
    if progress.training is not None:
        measures = progress.training
        gauges |= {
            "tuneyard_validation_loss": (
                "Lowest validation loss so far in nats per learned token.",
                measures.validation_loss,
            ),
            "tuneyard_trained_tokens": ("Tokens of all optimizer steps so far.", measures.trained_tokens),
            "tuneyard_peak_memory_bytes": (
                "Peak memory of the first GPU, or of the process without one.",
                measures.peak_memory_bytes,
            ),
        }
    labels = f'{{stage="{progress.stage}",phase="{progress.phase}"}}'
    lines = []
    for name, (meaning, value) in gauges.items():
        if value is not None:
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge", f"{name}{labels} {value}"]
    return "\n".join(lines) + "\n"


@contextmanager
def served(board: Board, port: int | None) -> Iterator[int | None]:
    """Answers GET /progress, /metrics and /healthz on `port` while the block runs; yields the port.

    None serves nothing; 0 takes a free port.
    """
    if port is None:
        yield None
        return
    try:
        # An empty host is every interface: the operator reads from outside the pod.
        server = ThreadingHTTPServer(("", port), _handler_of(board))
    except OSError as error:
        board.say(f"warning: progress is not served on port {port}: {error}")
        yield None
        return
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="progress", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler_of(board: Board) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # Seconds for which a silent client may occupy a thread.

        def do_GET(self) -> None:
            answer = _answer(board, self.path.partition("?")[0])
            if answer is None:
                self.send_error(404, "try /progress, /metrics or /healthz")
                return
            kind, text = answer
            content = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
            """Logs nothing: requests come every few seconds."""

    return Handler


def _answer(board: Board, path: str) -> tuple[str, str] | None:
    """Content type and text."""
    if path == "/progress":
        return "application/json", board.read().model_dump_json()
    if path == "/metrics":
        return "text/plain; version=0.0.4; charset=utf-8", to_prometheus(board.read())
    return ("text/plain; charset=utf-8", "ok\n") if path == "/healthz" else None
