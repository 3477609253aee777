# SPDX-License-Identifier: Apache-2.0
"""Training and publish against a real MLflow server: one run of the job, one of each attempt, each thing once."""

import http.server
import json
import socket
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from support.file_servers import running
from support.mlflow_server import running_mlflow
from tuneyard_api.names import GROUP
from tuneyard_api.pod_contract import PublishFacts, Stage
from tuneyard_trainer.fetch import patience
from tuneyard_trainer.pod.context import StageContext, StopRequest
from tuneyard_trainer.pod.environment import PodEnvironment
from tuneyard_trainer.pod.failures import Interrupted
from tuneyard_trainer.pod.progress import Board
from tuneyard_trainer.tracking import live
from tuneyard_trainer.workspace.metrics import MetricsFile, Tail

DIGEST = "sha256:"


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(autouse=True)
def at_leisure(monkeypatch):
    """No pauses; and a thread that is let finish on a busy machine, as in a pod its process would be gone."""
    monkeypatch.setattr(patience, "_PAUSES_SECONDS", (0.01, 0.01, 0.01))
    monkeypatch.setattr(live, "LAST_WORDS_SECONDS", 60.0)


def tracking(url, experiment):
    return {"tracking": {"mlflow": {"url": url}, "experiment": experiment}}


def attempt_of(pods, job, number):
    """The context of an attempt of the training, as a pod has it."""
    environment = PodEnvironment.of(pods.environ() | {"TUNEYARD_ATTEMPT": str(number)})
    return StageContext.of(environment, job, Board(Stage.TRAIN), StopRequest(raises=False))


def write_steps(pods, number, steps, *, after_step=0):
    file = MetricsFile(pods.workspace / "metrics.jsonl", number, after_step=after_step)
    for step in steps:
        file.add(step=step, loss=4.0 / step, learningRate=1e-4, tokensPerSecond=9.0)
    return file


def train_until_stopped(pods, context):
    with live.tracked(context):
        write_steps(pods, 1, (1, 2, 3))
        raise Interrupted("stopped by SIGTERM")


def published_again(pods, job):
    (pods.workspace / "results/publish.json").unlink(missing_ok=True)
    code, result = pods.run("publish", job)
    assert code == 0
    return PublishFacts.model_validate(result.facts)


def of_kind(runs, kind):
    return [run for run in runs if run["tags"][f"{GROUP}/run"] == kind]


@pytest.mark.torch
def test_a_real_training_is_in_mlflow_when_it_is_published(mlflow, pods, job_of, tiny_llama, training_data):
    job = job_of(tiny_llama, training_data(16), **tracking(mlflow.url, "real"))
    for stage in ("prepare", "train", "publish"):
        code, result = pods.run(stage, job)
        assert code == 0, result.failure
    facts = PublishFacts.model_validate(result.facts)
    assert facts.warnings == ()
    runs = mlflow.runs("real")
    (parent,), (attempt,) = of_kind(runs, "job"), of_kind(runs, "attempt")
    lines = [json.loads(line) for line in (pods.workspace / "metrics.jsonl").read_text().splitlines()]
    for run in (parent, attempt):
        assert run["status"] == "FINISHED"
        for metric, key in (("loss", "loss"), ("validation_loss", "validationLoss")):
            assert mlflow.history(run["id"], metric) == [
                (each["step"], each[key]) for each in lines if key in each
            ]
    assert attempt["tags"]["mlflow.parentRunId"] == parent["id"]
    assert (attempt["params"]["training.microBatchSize"], parent["params"]["method"]) == ("2", "lora")
    assert parent["params"]["training.learningRate"] == str(job.training.learning_rate)
    assert parent["tags"][f"{GROUP}/adapter-digest"] == facts.digest
    assert parent["tags"][f"{GROUP}/data-digest"].startswith(DIGEST)
    assert parent["metrics"]["tuned/loss"] < parent["metrics"]["base/loss"]
    assert facts.tracking is not None
    assert facts.tracking.startswith(f"{mlflow.url}/#/experiments/")
    assert facts.tracking.endswith(parent["id"])


@pytest.mark.torch
@pytest.mark.long
def test_of_several_processes_the_first_one_alone_writes(mlflow, pods, job_of, tiny_llama, training_data):
    spread = {"dataParallel": 2, "gradientAccumulation": 1}
    job = job_of(
        tiny_llama, training_data(16), training=spread, gpusPerNode=2, **tracking(mlflow.url, "spread")
    )
    assert pods.run("prepare", job)[0] == 0
    process = pods.start("train")
    assert process.wait(240) == 0, pods.result().failure
    live_runs = mlflow.runs("spread")
    assert sorted(run["tags"][f"{GROUP}/run"] for run in live_runs) == ["attempt", "job"]
    assert pods.run("publish", job)[0] == 0
    runs = mlflow.runs("spread")
    assert {run["id"] for run in runs} == {run["id"] for run in live_runs}
    (attempt,) = of_kind(runs, "attempt")
    lines = [json.loads(line) for line in (pods.workspace / "metrics.jsonl").read_text().splitlines()]
    assert mlflow.history(attempt["id"], "loss") == [
        (each["step"], each["loss"]) for each in lines if "loss" in each
    ]


def test_attempts_are_runs_below_the_run_of_their_job(mlflow, pods, trained):
    job = trained(**tracking(mlflow.url, "attempts"))
    first = attempt_of(pods, job, 1)
    with pytest.raises(Interrupted):
        train_until_stopped(pods, first)
    stopped, now_running = (
        of_kind(mlflow.runs("attempts"), "attempt"),
        of_kind(mlflow.runs("attempts"), "job"),
    )
    assert [run["status"] for run in (*stopped, *now_running)] == ["KILLED", "KILLED"]
    assert mlflow.history(stopped[0]["id"], "loss") == [(1, 4.0), (2, 2.0), (3, 4 / 3)]
    # The checkpoint was of step 2: the third one is made again.
    with live.tracked(attempt_of(pods, job, 2)):
        write_steps(pods, 2, (3, 4), after_step=2).add(step=4, validationLoss=0.5)
    published_again(pods, job)
    runs = mlflow.runs("attempts")
    (parent,) = of_kind(runs, "job")
    assert [run["status"] for run in of_kind(runs, "attempt")] == ["KILLED", "FINISHED"]
    assert parent["status"] == "FINISHED"
    assert mlflow.history(parent["id"], "loss") == [(1, 4.0), (2, 2.0), (3, 4 / 3), (4, 1.0)]
    second = of_kind(runs, "attempt")[1]
    assert mlflow.history(second["id"], "loss") == [(3, 4 / 3), (4, 1.0)]


def test_what_is_done_again_is_there_once(mlflow, pods, trained):
    job = trained(**tracking(mlflow.url, "again"))
    with live.tracked(attempt_of(pods, job, 1)):
        write_steps(pods, 1, (1, 2))
    addresses = {published_again(pods, job).tracking for _ in range(3)}
    assert len(addresses) == 1
    runs = mlflow.runs("again")
    assert (len(of_kind(runs, "job")), len(of_kind(runs, "attempt"))) == (1, 1)
    for run in runs:
        assert mlflow.history(run["id"], "loss") == [(1, 4.0), (2, 2.0)]


def test_a_tracker_that_was_down_while_training_has_everything_after_publish(mlflow, pods, trained, capsys):
    job = trained(**tracking(mlflow.url, "down"))
    mlflow.stop()
    try:
        with live.tracked(attempt_of(pods, job, 1)):
            write_steps(pods, 1, (1, 2))
        lacking = published_again(pods, job)
        assert lacking.tracking is None
        (warning,) = lacking.warnings
        assert "does not answer" in warning
        assert "kubectl tuneyard fetch" in warning
        assert warning in capsys.readouterr().out
    finally:
        mlflow.start()
    assert published_again(pods, job).warnings == ()
    runs = mlflow.runs("down")
    (attempt,) = of_kind(runs, "attempt")
    assert attempt["status"] == "FINISHED"
    assert mlflow.history(attempt["id"], "loss") == [(1, 4.0), (2, 2.0)]


def test_a_job_that_its_gate_stops_has_failed_there_too(mlflow, pods, trained):
    gate = {"maxPrompts": 4, "maxNewTokens": 6, "gate": {"maximum": {"loss": 0.1}}}
    job = trained(**tracking(mlflow.url, "gate"), evaluation=gate)
    write_steps(pods, 1, (1, 2))
    code, result = pods.run("publish", job)
    assert (code, result.failure.failure_class) == (22, "GateFailed")
    (parent,) = of_kind(mlflow.runs("gate"), "job")
    assert parent["status"] == "FAILED"
    assert parent["tags"][f"{GROUP}/failed"] == result.failure.message
    assert f"{GROUP}/adapter-digest" not in parent["tags"]
    assert parent["metrics"]["tuned/loss"] == 1.25


@contextmanager
def losing_answers(target):
    """A proxy that passes every call on, and loses the first answer to each page that changes something."""
    lost = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            request = urllib.request.Request(target + self.path, body, {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    status, content = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                status, content = error.code, error.read()
            if body is not None and self.path not in lost and "search" not in self.path:
                lost.add(self.path)
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with running(server):
        yield f"http://127.0.0.1:{server.server_address[1]}", lost


def test_an_answer_that_is_lost_doubles_nothing(mlflow, pods, trained, monkeypatch):
    monkeypatch.setattr(patience, "_PAUSES_SECONDS", (0.01,) * 9)
    with losing_answers(mlflow.url) as (url, lost):
        job = trained(**tracking(url, "lost"))
        context = attempt_of(pods, job, 1)
        live.attempts.end(context, live.attempts.begin(context), None)
        write_steps(pods, 1, (1, 2))
        assert published_again(pods, job).warnings == ()
    pages = {path.partition("mlflow/")[2] for path in lost}
    assert pages == {"experiments/create", "runs/create", "runs/log-batch", "runs/update"}
    runs = mlflow.runs("lost")
    assert (len(of_kind(runs, "job")), len(of_kind(runs, "attempt"))) == (1, 1)
    for run in runs:
        assert mlflow.history(run["id"], "loss") == [(1, 4.0), (2, 2.0)]


def test_a_training_does_not_wait_for_a_tracker_that_never_answers(pods, trained, monkeypatch):
    monkeypatch.setattr(live, "LAST_WORDS_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        job = trained(**tracking(f"http://127.0.0.1:{silent.getsockname()[1]}", "silent"))
        began = time.monotonic()
        with live.tracked(attempt_of(pods, job, 1)):
            write_steps(pods, 1, (1, 2))
            in_block = time.monotonic() - began
        assert in_block < 1
        assert time.monotonic() - began < 4


def test_an_answer_that_is_not_mlflows_fails_no_training(pods, trained, capsys):
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>log in</html>")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    with running(server):
        job = trained(**tracking(f"http://127.0.0.1:{server.server_address[1]}", "page"))
        with live.tracked(attempt_of(pods, job, 1)):
            write_steps(pods, 1, (1,))
        (warning,) = published_again(pods, job).warnings
    assert "is there another server?" in warning
    assert "the training goes on" in capsys.readouterr().out


def test_a_tail_reads_each_whole_line_once_and_a_new_file_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    file = MetricsFile(path, 1, after_step=0)
    file.add(step=1, loss=1.0)
    assert [line["step"] for line in tail.read()] == [1]
    with path.open("a") as stream:
        stream.write('{"step": 2')
    assert tail.read() == []
    MetricsFile(path, 2, after_step=1).add(step=2, loss=0.5)
    assert [(line["step"], line["attempt"]) for line in tail.read()] == [(1, 1), (2, 2)]
    assert tail.read() == []
