# SPDX-License-Identifier: Apache-2.0
"""Debian's own Prometheus as a process, its programs, and what it answers to the queries of the dashboard."""

import json
import math
import random
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from observability.dashboard import PANELS
from tuneyard_local.debian import PROMETHEUS, package_program
from tuneyard_local.errors import ClusterError
from tuneyard_local.network import pick_ports
from tuneyard_local.progress import Progress

from support.cluster.operator_process import until

STEP_SECONDS = 1.0
Line = Mapping[str, Any]


def program(name: str) -> Path:
    """`prometheus` or `promtool`; a machine that can't fetch the package says so."""
    try:
        return package_program(PROMETHEUS, name, Progress())
    except ClusterError as error:
        pytest.skip(f"no Prometheus: {error}")


class Prometheus:
    """A server that answers queries."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, page: str, **parameters: str) -> Any:
        """The data of an answer of the HTTP API."""
        url = f"{self.address}/api/v1/{page}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.loads(answer.read())["data"]

    def lines(self, expression: str, legend: str, start: float, end: float) -> list[Line]:
        """The lines that Grafana would draw of a query, with seconds since the start; what is no number has no point."""
        moments = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{STEP_SECONDS:g}"}
        found = []
        for each in self.ask("query_range", query=expression, **moments)["result"]:
            points = [
                (round(float(time) - start, 3), float(f"{float(value):.6g}"))
                for time, value in each["values"]
                if math.isfinite(float(value))
            ]
            if points:
                found.append({"legend": _filled(legend, each["metric"]), "points": points})
        return sorted(found, key=lambda line: str(line["legend"]))

    def dashboard(self, start: float, end: float) -> dict[str, Any]:
        """What every panel shows between two Unix times."""
        panels = [
            {
                "title": panel.title,
                "unit": panel.unit,
                "lines": [
                    line
                    for query in panel.queries
                    for line in self.lines(query.expression, query.legend, start, end)
                ],
            }
            for panel in PANELS
        ]
        return {"seconds": round(end - start, 1), "panels": panels}


@contextmanager
def running(folder: Path, scraped: Mapping[str, str] | None = None) -> Iterator[Prometheus]:
    """A Prometheus with its data in `folder`, which reads the addresses of some jobs every second."""
    port = pick_ports(["prometheus"], random.SystemRandom())["prometheus"]
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [target]}]}
        for name, target in (scraped or {}).items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        str(program("prometheus")),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.retention.time=100y",
        "--log.level=warn",
    ]
    address = f"http://127.0.0.1:{port}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until("Prometheus is ready", lambda: _is_ready(address), 60)
        yield Prometheus(address)
    finally:
        process.terminate()
        process.wait(30)


def load(recorded: Path, folder: Path) -> None:
    """Make the data of a Prometheus of series in OpenMetrics text."""
    words = [
        str(program("promtool")),
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        str(recorded),
        f"{folder}/data",
    ]
    subprocess.run(words, check=True, capture_output=True, timeout=120)


def recording(series: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """OpenMetrics text of raw samples as the API gives them, without those between two others of the same value."""
    for each in sorted(series, key=lambda one: json.dumps(one["metric"], sort_keys=True)):
        name, samples = each["metric"]["__name__"], each["values"]
        if name.endswith("_created"):
            continue  # when a counter began, which no query asks for
        labels = {
            label: value for label, value in each["metric"].items() if label not in {"__name__", "instance"}
        }
        text = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        for at, (time, value) in enumerate(samples):
            around = samples[max(at - 1, 0)][1], samples[min(at + 1, len(samples) - 1)][1]
            if at in {0, len(samples) - 1} or around != (value, value):
                yield f"{name}{{{text}}} {value} {time:.3f}"
    yield "# EOF"


def _filled(legend: str, labels: Mapping[str, str]) -> str:
    """A legend with the values of the labels that it names."""
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), legend).strip()


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
