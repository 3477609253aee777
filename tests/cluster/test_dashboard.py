# SPDX-License-Identifier: Apache-2.0
"""Every query of the dashboard, asked of a real Prometheus: over a run of the operator, and over its recorded series.

`make dashboard` records a run: the answers, from which the picture is drawn, and the series for the shorter test.
"""

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from observability.dashboard import PANELS
from observability.picture import RESULTS
from support.cluster.operator_process import JobOnCluster, OperatorProcess
from support.cluster.operator_setup import make_claims
from support.prometheus import Prometheus, load, recording, running
from support.samples import TRAIN_FACTS, failure_text, job_spec, result_text
from tuneyard_api.pod_contract import PROGRESS_PORT, FailureClass, Progress, Stage

pytestmark = pytest.mark.cluster
REPOSITORY = Path(__file__).parents[2]
SERIES = Path(__file__).with_name("dashboard-series.om")
POD_IP = "127.0.0.77"
"""A training pod's: all of 127/8 is this machine, and no other test listens here."""


def empty_queries(server: Prometheus, start: float, end: float) -> list[str]:
    return [
        query.expression
        for panel in PANELS
        for query in panel.queries
        if not server.lines(query.expression, query.legend, start, end)
    ]


def test_no_query_of_the_dashboard_is_empty_over_the_recorded_series(tmp_path: Path) -> None:
    times = [float(line.rpartition(" ")[2]) for line in SERIES.read_text().splitlines() if line[0] != "#"]
    load(SERIES, tmp_path)
    with running(tmp_path) as server:
        assert empty_queries(server, min(times), max(times)) == []


@pytest.fixture
def training() -> Iterator[list[Progress]]:
    """The port of a training pod, which answers with the last progress of the list."""
    shown: list[Progress] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = shown[-1].model_dump_json(by_alias=True).encode() if shown else b""
            self.send_response(200 if shown else 503)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((POD_IP, PROGRESS_PORT), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield shown
    server.shutdown()
    server.server_close()


def start_training(job: JobOnCluster, attempt: int = 1) -> str:
    pod = job.pod(Stage.TRAIN, attempt)
    job.set_pod(
        pod,
        phase="Running",
        podIP=POD_IP,
        podIPs=[{"ip": POD_IP}],
        containerStatuses=[
            {"name": "trainer", "image": "x", "imageID": "", "ready": True, "restartCount": 0}
            | {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        ],
    )
    return pod


def end_training(job: JobOnCluster, pod: str, seconds: float) -> None:
    plan = job.status.plan
    assert plan is not None
    job.end_pod(pod, message=result_text(Stage.TRAIN, plan.digest, facts=TRAIN_FACTS | {"seconds": seconds}))


def live(job: JobOnCluster, endpoint, training: list[Progress]) -> None:
    """Jobs that succeed, fail, miss their gate, are interrupted, wait and queue, for about a minute."""
    make_claims(job.cluster, job.namespace, *"abcde")
    one, two, bad, large, queued = (JobOnCluster(job.cluster, job.namespace, name) for name in "abcde")
    one.apply(job_spec())
    two.apply(job_spec(evaluation={"gate": {"minimum": {"rougeL": 0.9}}}))
    bad.apply(job_spec())
    large.apply(job_spec(parallelism={"gpusPerNode": 8}))
    queued.apply(job_spec(scheduling={"queue": "gpus"}))
    for each in (one, two, large, queued):
        each.succeed(Stage.PREPARE)
    broken = bad.pod(Stage.PREPARE)
    bad.wait_for("Planned", "True")
    digest = bad.status.plan.digest
    words = failure_text(Stage.PREPARE, digest, FailureClass.BAD_INPUT, "train.jsonl:3: missing")
    bad.end_pod(broken, exit_code=10, reason="Error", message=words)
    queued.wait_for("Scheduled", "False", "Queued")
    large.wait_for("Scheduled", "False", "WaitingForGPU")
    first = start_training(one)
    other = start_training(two)
    for step in range(5):
        training.append(
            Progress(
                stage=Stage.TRAIN, phase="training", step=step + 1, of=40, loss=2.0, tokens_per_second=1500.0
            )
        )
        time.sleep(4)
    job.cluster.kubectl(
        "delete", "pod", first, "-n", job.namespace, "--wait=false", "--grace-period=0", "--force"
    )
    end_training(two, other, seconds=12.0)
    two.wait_for("Succeeded", "False", "GateFailed")
    again = start_training(one, attempt=2)
    time.sleep(12)
    end_training(one, again, seconds=10.0)
    one.wait_for("Evaluated", "True")
    one.succeed(Stage.PUBLISH)
    one.wait_for("Served", "False")
    time.sleep(3)
    endpoint.models.append("a")
    one.wait_for("Succeeded", "True")
    time.sleep(6)


@pytest.mark.long
def test_no_query_of_the_dashboard_is_empty_over_a_real_run(
    operator: OperatorProcess,
    job_without_claims: JobOnCluster,
    endpoint,
    training: list[Progress],
    tmp_path: Path,
) -> None:
    endpoint.models = ["base"]
    operator.start("--resync-seconds", "5")
    port = re.findall(r"\('127\.0\.0\.1', (\d+)\)", operator.said())[-1]
    with running(tmp_path, {"tuneyard-operator": f"127.0.0.1:{port}"}) as server:
        start = time.time()
        live(job_without_claims, endpoint, training)
        end = time.time()
        assert empty_queries(server, start, end) == []
        if os.environ.get("TUNEYARD_RECORD"):
            shown = server.dashboard(start, end)
            (REPOSITORY / RESULTS).write_text(json.dumps(shown, indent=1) + "\n")
            samples = server.ask("query", query='{__name__=~"tuneyard_.*"}[5m]', time=f"{end:.3f}")["result"]
            SERIES.write_text("\n".join(recording(samples)) + "\n")
