# SPDX-License-Identifier: Apache-2.0
"""An API server on a loopback port, with a kubeconfig: what clients of people ask, on a dict of objects.

It answers objects, lists with selectors, logs and merge patches as the real one does. Pods that are made run at once.
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
            return 200, self._log(url.path.split("/")[-2], query)
        if method != "GET":
            return self._change(method, url.path, body)
        if url.path in self.objects:
            return 200, json.dumps(self.objects[url.path]).encode()
        if url.path in self.groups:
            return 200, b"{}"
        return self._listed(url.path, query)

    def _log(self, pod: str, query: Mapping[str, str]) -> bytes:
        lines = self.logs.get(pod, "").splitlines(keepends=True)
        return "".join(lines[-int(query.get("tailLines", len(lines))) or len(lines) :]).encode()

    def _change(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if method == "POST":
            made = {**json.loads(body), "status": {"phase": "Running"}}
            if prefix := made["metadata"].get("generateName"):
                made["metadata"]["name"] = f"{prefix}x7k2p"
            self.put(path, made)
            return 201, json.dumps(made).encode()
        path = path.removesuffix("/status")
        if path not in self.objects:
            return 404, b'{"message": "not found"}'
        if method == "DELETE":
            return 200, json.dumps(self.objects.pop(path)).encode()
        self.objects[path] = merged(self.objects[path], json.loads(body))
        return 200, json.dumps(self.objects[path]).encode()

    def _listed(self, path: str, query: Mapping[str, str]) -> tuple[int, bytes]:
        found = [each for at, each in self.objects.items() if _is_in(at, path) and _selects(query, each)]
        is_known = any(path.startswith((group, "/api/v1")) for group in self.groups) and _is_list(path)
        if found or is_known:
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

            do_GET = do_PATCH = do_POST = do_DELETE = answer  # noqa: N815  names of the base class

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
    return path.rsplit("/", 1)[-1] in {"finetunejobs", "finetuneruntimes", "pods", "events", "nodes"}


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
