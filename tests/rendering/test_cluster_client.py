# SPDX-License-Identifier: Apache-2.0
"""The client on the wire: credentials are sent, secrets are asked for as metadata, refusals become findings."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tuneyard.cluster.client import ApplyConflictError, ClusterClient
from tuneyard.findings import InputError

ANSWERS: dict[tuple[str, str], tuple[int, Any]] = {
    ("GET", "/api/v1/nodes?limit=500&continue="): (200, {"items": [1], "metadata": {"continue": "more"}}),
    ("GET", "/api/v1/nodes?limit=500&continue=more"): (200, {"items": [2], "metadata": {}}),
    ("GET", "/api/v1/namespaces/a/secrets/b"): (200, {"metadata": {"name": "b"}}),
    ("GET", "/forbidden"): (403, {"message": "nodes is forbidden"}),
    ("GET", "/odd"): (500, "no object"),
    ("PATCH", "/held?fieldManager=tuneyard&force=false&fieldValidation=Strict"): (
        409,
        {"message": "conflict with x"},
    ),
    ("PATCH", "/free?fieldManager=tuneyard&force=true&fieldValidation=Strict&dryRun=All"): (
        200,
        {"ok": True},
    ),
}


@pytest.fixture
def seen() -> list[Any]:
    return []


@pytest.fixture
def client(tmp_path: Path, seen: list[Any]) -> Iterator[ClusterClient]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append((self.command, self.path, dict(self.headers)))
            code, body = ANSWERS.get((self.command, self.path), (404, {"message": "not found"}))
            data = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PATCH = answer  # noqa: N815  names of the base class

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "users": [{"name": "c", "user": {"token": "secret-token"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        }  # fmt: skip
        (tmp_path / "config").write_text(json.dumps(config))
        yield ClusterClient(tmp_path / "config")
        server.shutdown()
        thread.join()


def test_the_token_is_sent(client: ClusterClient, seen: list[Any]) -> None:
    client.get("/version")
    headers = {key.lower(): value for key, value in seen[0][2].items()}
    assert headers["authorization"] == "Bearer secret-token"


def test_lists_are_read_to_their_end(client: ClusterClient) -> None:
    assert client.items("/api/v1/nodes") == [1, 2]
    assert client.items("/apis/unknown/v1/things") == []


def test_secrets_are_asked_for_as_metadata(client: ClusterClient, seen: list[Any]) -> None:
    assert client.has_secret("a", "b")
    assert not client.has_secret("a", "c")
    assert all("as=PartialObjectMetadata" in headers["Accept"] for _, _, headers in seen)


@pytest.mark.parametrize(("path", "says"), [("/forbidden", "nodes is forbidden"), ("/odd", "no object")])
def test_a_refusal_is_a_finding(client: ClusterClient, path: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        client.get(path)


def test_an_apply_may_conflict(client: ClusterClient) -> None:
    with pytest.raises(ApplyConflictError, match="conflict with x"):
        client.apply("/held", {})
    assert client.apply("/free", {}, force=True, dry_run=True) == {"ok": True}
