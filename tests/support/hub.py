# SPDX-License-Identifier: Apache-2.0
"""A local server that answers as a Hugging Face hub does: information, trees and files of repositories, gated ones too."""

import hashlib
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_local"


class Hub(ThreadingHTTPServer):
    """Repositories as {(kind, name): {file: content}}; names that begin with `gated/` want a token."""

    daemon_threads = True

    def __init__(self, host: str) -> None:
        super().__init__((host, 0), HubHandler)
        self.repositories: dict[tuple[str, str], dict[str, bytes]] = {}
        self.requests: list[tuple[str, str]] = []
        self.is_broken = False
        self.scheme = "http"
        self.pauses: list[str] = []
        """What the answers of a broken hub say in Retry-After, one after the other."""
        self.troubles: dict[str, list[int | str]] = {}
        """What the next downloads of a file meet, by its name: a status, which asks for a pause of 0 s, or `break`."""
        self.ranges: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        return f"{self.scheme}://{self.server_address[0]!s}:{self.server_address[1]}"


@contextmanager
def running_hub(host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> Iterator[Hub]:
    """A hub that answers at an address of this machine, with a context by TLS."""
    server = Hub(host)
    if context:
        server.scheme = "https"
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.requests.append((self.command, self.path))
        path = self.path.partition("?")[0].strip("/")
        if self.server.is_broken:
            self.answer(
                503, b"down", {"Retry-After": self.server.pauses.pop(0)} if self.server.pauses else {}
            )
        elif path.startswith("api/"):
            self.information(path.split("/"))
        else:
            self.file(path)

    def information(self, parts: list[str]) -> None:
        kind, repo = parts[1], "/".join(parts[2:4])
        files = self.allowed(kind, repo)
        if files is None:
            return
        if parts[4:5] == ["revision"] and parts[5] not in {"main", COMMIT}:
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif parts[4:5] == ["tree"]:
            entries = [
                {"type": "file", "path": name, "size": len(c), "oid": git_id(c)} for name, c in files.items()
            ]
            self.answer(200, json.dumps(entries).encode())
        else:
            siblings = [{"rfilename": name} for name in files]
            body = {"id": repo, "sha": COMMIT, "siblings": siblings, "private": False}
            self.answer(200, json.dumps(body).encode())

    def file(self, path: str) -> None:
        kind, path = (
            ("datasets", path.removeprefix("datasets/")) if path.startswith("datasets/") else ("models", path)
        )
        owner, name, _, _, *rest = path.split("/")
        files = self.allowed(kind, f"{owner}/{name}")
        if files is None:
            return
        content = files.get("/".join(rest))
        if content is None:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            self.content("/".join(rest), content)

    def content(self, name: str, content: bytes) -> None:
        """A file, or the part of it that is asked for, after what is to go wrong before it comes."""
        headers = {"ETag": f'"{git_id(content)}"', "X-Repo-Commit": COMMIT}
        asked = self.headers.get("Range", "")
        if self.command == "GET":
            self.server.ranges.append((name, asked))
        troubles = self.server.troubles.get(name) if self.command == "GET" else None
        trouble = troubles.pop(0) if troubles else None
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if isinstance(trouble, int):
            self.answer(trouble, b"later", {"Retry-After": "0"})
            return
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        rest = content[start:]
        self.answer(206 if asked else 200, rest, headers, len(rest) // 2 if trouble == "break" else None)

    def allowed(self, kind: str, repo: str) -> dict[str, bytes] | None:
        """The files of a repository; None after a refusal was sent."""
        files = self.server.repositories.get((kind, repo))
        has_token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if files is None:
            # As the hub does: strangers are not told whether a repository is private or not there.
            code, error = (404, "RepoNotFound") if has_token else (401, "RepoNotFound")
            self.answer(code, b"{}", {"X-Error-Code": error})
        elif self.headers.get("Authorization", f"Bearer {TOKEN}") != f"Bearer {TOKEN}":
            self.answer(401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repo.startswith("gated/") and not has_token:
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        else:
            return files
        return None

    def answer(
        self, code: int, content: bytes, headers: Mapping[str, str] | None = None, sent: int | None = None
    ) -> None:
        """Answers with the content; the connection breaks after `sent` bytes of it."""
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:sent])

    def log_message(self, *_: object) -> None:
        """Quiet."""


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324  as git has it
