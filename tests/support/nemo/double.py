# SPDX-License-Identifier: Apache-2.0
"""The four services behind one address: as a function for tests without sockets, and as a server for real clients."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tuneyard_operator.adapters.nemo import Answer

from support.nemo.customizer import Customizer
from support.nemo.data_store import DataStore
from support.nemo.entities import EntityStore
from support.nemo.evaluator import Evaluator
from support.nemo.wire import UNANSWERED, Fault, Refused, Reply, Request, Unprocessable

TOKEN = "a-token-of-the-services"  # nobody's
_OF_ENTITY_STORE = {"namespaces", "datasets", "models", "projects"}


class NemoDouble:
    """All services, their state and their faults."""

    def __init__(self, now: Callable[[], datetime] | None = None, token: str | None = None) -> None:
        self.now = now or (lambda: datetime.now(UTC))
        self.token = token
        """What clients must send as bearer token; None: anything."""
        self.entities, self.store = EntityStore(self.now), DataStore()
        self.customizer = Customizer(self.now, self.entities, self.store)
        self.evaluator = Evaluator(self.now)
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        """Method and path of each request, in order."""
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Reply:
        """The answer to a request, with the fault that is switched on for it."""
        with self._lock:
            self.requests.append((request.method, request.path))
            fault = next((each for each in self.faults if each.applies(request)), None)
            return fault.meet(request, self._handle) if fault is not None else self._handle(request)

    def _handle(self, request: Request) -> Reply:
        is_signed = request.path.startswith("/v1/hf/lfs/")  # the hub's client sends no token there
        given = request.headers.get("Authorization")
        if self.token is not None and not is_signed and given != f"Bearer {self.token}":
            return Refused(401, "no valid token").reply()
        try:
            return self._route(request)
        except Refused as refused:
            return refused.reply()
        except (KeyError, TypeError, AttributeError) as error:
            return Unprocessable("body", f"has another form: {error!r}").reply()

    def _route(self, request: Request) -> Reply:
        version, _, path = request.path.strip("/").partition("/")
        if version != "v1":
            raise Refused(404, f"no such route: {request.path}")
        if path.startswith(("hf/", "datastore/")):
            return self.store.serve(request, path)
        first, *rest = path.split("/")
        if first in _OF_ENTITY_STORE:
            return self.entities.serve(request, [first, *rest])
        if first == "customization" and rest:
            return self.customizer.serve(request, rest)
        if first == "evaluation" and rest:
            return self.evaluator.serve(request, rest)
        raise Refused(404, f"no such route: {request.path}")


def call_double(double: NemoDouble, method: str, url: str, body: Any, token: str = TOKEN) -> Answer:
    """One of the operator's calls, answered without sockets."""
    parts = urlsplit(url)
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}"}
    request = Request(method, unquote(parts.path), dict(parse_qsl(parts.query)), headers, content)
    answer = double.answer(request)
    if answer.status == UNANSWERED:
        return Answer(unreachable="ServerDisconnectedError: Server disconnected")
    pause = answer.headers.get("Retry-After")
    return Answer(status=answer.status, body=answer.body, retry_after=float(pause) if pause else None)


@contextmanager
def served(double: NemoDouble) -> Iterator[str]:
    """The double at an address of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(double))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(double: NemoDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = self._chunks()
            base = f"http://{self.headers['Host']}"
            query = dict(parse_qsl(url.query))
            method = "GET" if self.command == "HEAD" else self.command
            request = Request(
                method,
                unquote(url.path),
                query,
                {name.title(): value for name, value in self.headers.items()},
                body,
                base,
            )
            answer = double.answer(request)
            if answer.status == UNANSWERED:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815

        def _chunks(self) -> bytes:
            content = b""
            while size := int(self.rfile.readline().strip(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def log_message(self, *_: object) -> None:
            """Nothing: tests read the double's state."""

    return Handler
