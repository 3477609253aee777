# SPDX-License-Identifier: Apache-2.0
"""Real MLflow as a process, of the version that the catalog's chart deploys, with SQLite; and what it answers.

It is installed from local/mlflow/uv.lock into the cache, in a folder of its own.
"""

import json
import os
import random
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tuneyard_local.environment import PODS_PYTHON, build_environment, export_requirements, find_python
from tuneyard_local.errors import ClusterError
from tuneyard_local.network import pick_ports
from tuneyard_local.parts import is_supported_platform
from tuneyard_local.paths import REPOSITORY, cache_root
from tuneyard_local.progress import Progress

from support.cluster.operator_process import until

_DISK_GIB = 1.5
_START_SECONDS = 180.0


@cache
def mlflow_environment() -> Path:
    """The folder of its packages; a machine that can't have it says so."""
    if not is_supported_platform() or find_python() is None:
        pytest.skip(f"MLflow is installed for Linux on x86-64 and Python {PODS_PYTHON} only")
    requirements = export_requirements((), REPOSITORY / "local" / "mlflow")
    try:
        return build_environment(
            "MLflow", requirements, cache_root() / "mlflow", Progress(), disk_gib=_DISK_GIB
        )
    except ClusterError as error:
        pytest.skip(f"no MLflow: {error}")


class MlflowServer:
    """A server that can be stopped and started again with what it has kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = pick_ports(["mlflow"], random.SystemRandom())["mlflow"]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        python = find_python()
        assert python is not None
        store = f"sqlite:///{self._folder / 'mlflow.db'}"
        argv = [
            python,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self._port),
            "--workers",
            "1",
        ]
        argv += ["--backend-store-uri", store, "--artifacts-destination", str(self._folder / "artifacts")]
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW"))
        }
        # Their jobs are for GenAI evaluations, and need processes of their own.
        off = {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }
        env = kept | off | {"PYTHONPATH": str(mlflow_environment()), "HOME": str(self._folder)}
        with (self._folder / "mlflow.log").open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                env=env,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until("MLflow answers", self._is_there, _START_SECONDS)

    def stop(self) -> None:
        """End it with all of its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None

    def ask(self, page: str, body: Mapping[str, Any] | None = None) -> Any:
        """An answer of the REST API; with a body it is a POST."""
        url = f"{self.url}/api/2.0/mlflow/{page}"
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def runs(self, experiment: str) -> list[dict[str, Any]]:
        """All runs of an experiment, oldest first, with tags, parameters and latest metrics as plain values."""
        found = self.ask(f"experiments/get-by-name?experiment_name={experiment}")["experiment"]
        runs = self.ask("runs/search", {"experiment_ids": [found["experiment_id"]], "max_results": 100})[
            "runs"
        ]
        plain = [
            {
                "id": run["info"]["run_id"],
                "name": run["info"]["run_name"],
                "status": run["info"]["status"],
                "started": run["info"]["start_time"],
                **{
                    part: {each["key"]: each["value"] for each in run["data"].get(part, [])}
                    for part in ("tags", "params", "metrics")
                },
            }
            for run in runs
        ]
        return sorted(plain, key=lambda run: run["started"])

    def history(self, run: str, metric: str) -> list[tuple[int, float]]:
        """Step and value of every point of a metric, as they are stored."""
        found = self.ask(f"metrics/get-history?run_id={run}&metric_key={metric}").get("metrics", [])
        return sorted((int(each["step"]), each["value"]) for each in found)

    def _is_there(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError((self._folder / "mlflow.log").read_text()[-2000:])
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def running_mlflow(folder: Path) -> Iterator[MlflowServer]:
    """A server of its own, which ends with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    server = MlflowServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
