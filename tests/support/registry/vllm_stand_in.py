# SPDX-License-Identifier: Apache-2.0
"""Answers as vLLM 0.32.0 does to what adapter-sync asks.

A loaded name keeps its weights until `load_inplace`, the folder that was loaded is its `root`, and a restart forgets all.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tuneyard_api.pod_contract import ADAPTER_FILES


@dataclass
class VllmStandIn:
    base: str = "tiny"
    loaded: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Root, and the weights as they were read, by name."""
    asked: list[tuple[str, Any]] = field(default_factory=list)
    refuses: dict[str, str] = field(default_factory=dict)
    """Names that can't be loaded, with the message."""
    says: dict[str, str] = field(default_factory=dict)
    """What names answer, instead of their weights."""
    port: int = 0
    allows_loading: bool = True

    def restart(self) -> None:
        self.loaded.clear()

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        self.asked.append((path, body))
        if path == "/v1/models":
            rows = [{"id": self.base, "root": "/models/tiny"}]
            return 200, {"data": rows + [{"id": n, "root": root} for n, (root, _) in self.loaded.items()]}
        if path in {"/v1/completions", "/v1/chat/completions"}:
            return self._complete(path, body)
        if not self.allows_loading:
            return 404, {"detail": "Not Found"}
        name = body["lora_name"]
        if path == "/v1/unload_lora_adapter":
            if self.loaded.pop(name, None) is None:
                return error(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
            return 200, f"Success: LoRA adapter '{name}' removed successfully."
        return self._load(name, body)

    def _complete(self, path: str, body: Any) -> tuple[int, Any]:
        """Answers with the weights, so that other weights answer something else."""
        if body["model"] not in self.loaded:
            return error(404, "NotFoundError", f"The model `{body['model']}` does not exist.")
        text = self.says.get(body["model"], self.loaded[body["model"]][1].decode())
        return 200, {"choices": [{"message": {"content": text}} if "chat" in path else {"text": text}]}

    def _load(self, name: str, body: Any) -> tuple[int, Any]:
        if name == self.base:
            return error(
                400, "InvalidUserInput", f"The lora adapter '{name}' conflicts with a served base model."
            )
        if name in self.loaded and not body.get("load_inplace"):
            return error(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded.")
        if name in self.refuses:
            return error(500, "InternalServerError", self.refuses[name])
        folder = Path(body["lora_path"])
        try:
            json.loads((folder / ADAPTER_FILES[0]).read_text())
            weights = (folder / ADAPTER_FILES[1]).read_bytes()
        except FileNotFoundError:
            return error(404, "NotFoundError", f"No adapter found for {name} at {folder}")
        self.loaded[name] = (str(folder), weights)
        return 200, f"Success: LoRA adapter '{name}' added successfully."


def error(code: int, kind: str, message: str) -> tuple[int, Any]:
    return code, {"error": {"message": message, "type": kind, "param": None, "code": code}}


@contextmanager
def running(stand_in: VllmStandIn) -> Iterator[VllmStandIn]:
    """Listens on a port of the loopback address; one that it had before is taken again."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: Any) -> None:
            status, content = stand_in.answer(self.path, body)
            raw = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", stand_in.port), Handler)
    stand_in.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
