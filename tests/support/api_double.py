# SPDX-License-Identifier: Apache-2.0
"""An API server on a loopback port, with a kubeconfig: what clients of people ask, on a dict of objects.

It answers objects, lists with selectors, logs and merge patches as the real one does; tests/verbs holds both to the same.
"""

import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.world.merge_patch import merged


class ApiDouble:
    """Objects by path; what is at `forbidden` is refused as RBAC does."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, str] = {}
        self.forbidden: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.groups: set[str] = {"/apis/tuneyard.io/v1alpha1"}

    def put(self, path: str, body: Mapping[str, Any]) -> None:
        """Add an object; `path` is that of its list."""
        self.objects[f"{path}/{body['metadata']['name']}"] = dict(body)

    def answer(self, method: str, address: str, body: bytes) -> tuple[int, bytes]:
        """Status and content."""
        url = urlsplit(address)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.asked.append((method, address))
        if any(url.path.startswith(path) for path in self.forbidden):
            message = f'User "ada" cannot {"patch" if method == "PATCH" else "list"} resource at {url.path}'
            return 403, json.dumps({"message": message}).encode()
        if url.path.endswith("/log"):
            text = self.logs.get(url.path.split("/")[-2])
            lines = (text or "").splitlines(keepends=True)
            return 200, "".join(lines[-int(query.get("tailLines", len(lines))) or len(lines) :]).encode()
        if method == "PATCH" and url.path in self.objects:
            self.objects[url.path] = merged(self.objects[url.path], json.loads(body))
        if url.path in self.objects:
            return 200, json.dumps(self.objects[url.path]).encode()
        if url.path in self.groups:
            return 200, b"{}"
        found = [
            each for path, each in self.objects.items() if _is_in(path, url.path) and _selects(query, each)
        ]
        if found or (
            any(url.path.startswith((group, "/api/v1")) for group in self.groups) and _is_list(url.path)
        ):
            return 200, json.dumps({"items": found, "metadata": {}}).encode()
        return 404, b'{"message": "not found"}'

    @contextmanager
    def served(self, folder: Path, namespace: str = "team") -> Iterator[Path]:
        """Serve while the block runs; yields a kubeconfig."""
        double = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                code, data = double.answer(self.command, self.path, body)
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PATCH = answer  # noqa: N815  names of the base class

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            config = {
                "apiVersion": "v1", "kind": "Config", "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "users": [{"name": "c", "user": {}}],
                "contexts": [
                    {"name": "c", "context": {"cluster": "c", "user": "c", "namespace": namespace}},
                    {"name": "other", "context": {"cluster": "c", "user": "c", "namespace": "elsewhere"}},
                ],
            }  # fmt: skip
            (folder / "config").write_text(json.dumps(config))
            yield folder / "config"
            server.shutdown()
            thread.join()


def _is_list(path: str) -> bool:
    return path.rsplit("/", 1)[-1] in {"finetunejobs", "pods", "events"}


def _is_in(path: str, listed: str) -> bool:
    """Whether an object is in a list: of its namespace, or of all."""
    folder = path.rsplit("/", 1)[0]
    if folder == listed:
        return True
    parts = folder.split("/")
    if "namespaces" not in parts:
        return False
    at = parts.index("namespaces")
    return "/".join(parts[:at] + parts[at + 2 :]) == listed


def _selects(query: Mapping[str, str], body: Mapping[str, Any]) -> bool:
    labels = dict(each.split("=") for each in query.get("labelSelector", "").split(",") if each)
    fields = dict(each.split("=") for each in query.get("fieldSelector", "").split(",") if each)
    has = body["metadata"].get("labels", {})
    return labels.items() <= has.items() and all(body.get(name) == value for name, value in fields.items())
