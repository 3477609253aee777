# SPDX-License-Identifier: Apache-2.0
"""What people see: GET /adapters as JSON, and one line in the log whenever something changes."""

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pydantic import Field
from tuneyard_api.base import Contract


class AdapterStatus(Contract):
    """One name of the registry."""

    name: str
    digest: str | None = None
    """Digest of the version that the registry points to; absent if it can't be read."""
    loaded: bool | None = None
    """Whether the server answers with that version; absent if servers of this kind do not tell."""
    problem: str | None = None
    refused: str | None = None
    """Why the name stays with the former version, although the server was tried with this one."""


class SyncStatus(Contract):
    """Answer of GET /adapters."""

    adapters: tuple[AdapterStatus, ...] = ()
    """Names for the server's base model, and names that can't be read."""
    others: dict[str, str] = Field(default_factory=dict)
    """Names that are left out, with the reason."""
    registry_problem: str | None = None
    server_problem: str | None = None
    passes: int = 0
    """Number of reads of the registry since the start."""


class Log:
    """One line for each thing that changes: a problem when it comes, when it becomes another one and when it has gone."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._problems: dict[str, str] = {}

    def problems(self, now: dict[str, str]) -> None:
        """Takes all current problems by their subject, and logs what has changed."""
        for subject, problem in now.items():
            if self._problems.get(subject) != problem:
                self.say(f"{subject}: {problem}")
        for subject in self._problems.keys() - now.keys():
            self.say(f"{subject}: well again")
        self._problems = now


class StatusServer:
    """Answers GET /adapters and GET /healthz in a thread of its own."""

    def __init__(self, port: int) -> None:
        self.status = SyncStatus()
        board = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = board.answer(self.path)
                self.send_response(HTTPStatus.OK if content else HTTPStatus.NOT_FOUND)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(content or b"null")

            def log_message(self, *_: object) -> None:
                """Logs nothing, because requests are not news."""

        self._server = ThreadingHTTPServer(("", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def answer(self, path: str) -> bytes | None:
        """The JSON of a path, or None."""
        if path == "/adapters":
            return self.status.model_dump_json(exclude_none=True).encode()
        return b'"ok"' if path == "/healthz" else None

    def start(self) -> None:
        """Starts to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stops answering."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
