# SPDX-License-Identifier: Apache-2.0
"""Servers of adapters as processes on this machine: real vLLM and our own small one, with the same requests."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tuneyard_local import vllm
from tuneyard_local.network import pick_ports
from tuneyard_local.progress import Progress, tail
from tuneyard_server.settings import ENV_ADAPTERS, ENV_UPDATING

from support.tiny_adapters import TEMPLATE, random_weights, write_adapter, write_model

SERVED = "base"
"""The name of the base model; its folder has another."""
MAX_RANK, GPU_SLOTS, CPU_SLOTS = 32, 2, 4
START_SECONDS = 400
Kind = Literal["vllm", "own"]
Answer = tuple[int, Any]


@dataclass(frozen=True)
class AdapterServer:
    """A running server: its address, its base model, and its folder of adapters."""

    kind: Kind
    url: str
    model: str
    """The very string of `--model`."""
    folder: Path

    def ask(self, path: str, body: Any = None) -> Answer:
        """Status and body, read as JSON where it is JSON; GET without a body."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                status, raw = response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                status, raw = error.code, error.read()
        try:
            return status, json.loads(raw)
        except ValueError:
            return status, raw.decode()

    def complete(self, model: str, prompt: str = "the quick", **options: Any) -> Answer:
        """A greedy completion."""
        body = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 12}
        return self.ask("/v1/completions", body | options)

    def text(self, model: str, prompt: str = "the quick", **options: Any) -> str:
        """The text of a completion that must succeed."""
        status, answer = self.complete(model, prompt, **options)
        assert status == 200, answer
        return str(answer["choices"][0]["text"])

    def listed(self) -> dict[str, dict[str, Any]]:
        """The rows of /v1/models, by name."""
        return {row["id"]: row for row in self.ask("/v1/models")[1]["data"]}

    def publish(self, name: str, seed: int = 1, **options: Any) -> Path:
        """An adapter of this base in the server's folder."""
        return write_adapter(self.folder / name, seed, **{"base_model_name_or_path": self.model} | options)

    def load(self, name: str, path: Path | str, **options: Any) -> Answer:
        """POST /v1/load_lora_adapter."""
        return self.ask("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)} | options)

    def unload(self, name: str) -> Answer:
        """POST /v1/unload_lora_adapter."""
        return self.ask("/v1/unload_lora_adapter", {"lora_name": name})


def build_arguments(model: Path, port: int) -> list[str]:
    """The arguments of both servers."""
    return [
        f"--model={model}",
        f"--served-model-name={SERVED}",
        "--host=127.0.0.1",
        f"--port={port}",
        f"--max-loras={GPU_SLOTS}",
        f"--max-cpu-loras={CPU_SLOTS}",
        f"--max-lora-rank={MAX_RANK}",
    ]


def build_variables(folder: Path) -> dict[str, str]:
    """The environment variables of both servers: they load adapters at run time and find them in a folder."""
    return {
        ENV_UPDATING: "true",
        "VLLM_PLUGINS": "lora_filesystem_resolver",
        ENV_ADAPTERS: str(folder),
    }


def start_own(arguments: Sequence[str], variables: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Our server with this interpreter."""
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "tuneyard_server.main", *arguments],
            env=os.environ | {"HF_HUB_OFFLINE": "1"} | variables,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def start_vllm(arguments: Sequence[str], variables: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Real vLLM from its own environment."""
    small = ["--enable-lora", "--max-model-len=512", "--max-num-seqs=4"]
    environment = vllm.build_vllm_environment(Progress())
    return vllm.start_process(environment, [*arguments, *small], variables, log)


@contextmanager
def running(kind: Kind, root: Path, refresh_seconds: float | None = None) -> Iterator[AdapterServer]:
    """A server that is ready, with a random base model and an empty folder; it is always stopped at the end.

    With `refresh_seconds`, which only our server has, it can't be asked to load adapters, and looks into its folder so often.
    """
    model = write_model(root / "random-llama", random_weights(0), chat_template=TEMPLATE)
    folder, log = root / "adapters", root / "server.log"
    folder.mkdir()
    port = pick_ports(["server"], random.SystemRandom())["server"]
    start = start_vllm if kind == "vllm" else start_own
    arguments, variables = build_arguments(model, port), build_variables(folder)
    if refresh_seconds is not None:
        arguments.append(f"--refresh-seconds={refresh_seconds}")
        del variables[ENV_UPDATING]
    process = start(arguments, variables, log)
    server = AdapterServer(kind, f"http://127.0.0.1:{port}", str(model), folder)
    try:
        _wait_until_ready(server, process, log)
        yield server
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its engine is a process of its own
        process.wait()


def _wait_until_ready(server: AdapterServer, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, tail(log, 60)
        assert time.monotonic() < end, tail(log, 60)
        try:
            if server.ask("/health")[0] == 200:
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.25)
