# SPDX-License-Identifier: Apache-2.0
"""The commands of the pods of workflows: the files that become outputs, and the last words when something is wrong."""

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.registry.writing import adapter
from tuneyard_trainer.main import main
from tuneyard_trainer.registry.claim import ClaimRegistry


@dataclass
class Server:
    """An endpoint that knows the models in `answers`, and answers each prompt with its text."""

    answers: dict[str, dict[str, str]]
    refusals: int = 0
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.asked.append((path, body))
        if self.refusals or body["model"] not in self.answers:
            self.refusals = max(0, self.refusals - 1)
            return 404, {"message": f"The model {body['model']} does not exist."}
        said = self.answers[body["model"]].get(body.get("prompt") or body["messages"][-1]["content"], "?")
        choice = {"text": said} if "prompt" in body else {"message": {"content": said}}
        return 200, {"choices": [choice]}


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server({"m": {"def f():": " Return one.\n", "def g():": "Return two things."}})

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = served.reply(self.path, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        served.url = f"http://127.0.0.1:{httpd.server_port}"
        yield served
        httpd.shutdown()
        thread.join()


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def run(*words: object, outputs: Path) -> Result:
    return CliRunner().invoke(main, [*map(str, words), f"--outputs={outputs}"])


def written(outputs: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in outputs.iterdir()} if outputs.is_dir() else {}


def records(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_curated_records_are_named_as_a_job_names_them(tmp_path: Path, outputs: Path) -> None:
    source = records(
        tmp_path / "raw.jsonl", *({"prompt": f"p {n}", "completion": f"answer {n}"} for n in range(40))
    )
    words = ("curate", f"--source={source}", f"--folder={tmp_path / 'kept'}", "--place=pvc:data//kept/")
    done = run(*words, "--test-share=0.3", "--languages= English, ", outputs=outputs)
    assert done.exit_code == 0, done.output
    found = written(outputs)
    assert found["trainingData"] == "pvc:data/kept/train.jsonl"
    assert found["testData"] == "pvc:data/kept/test.jsonl"
    assert (found["kept"], found["dropped"]) == ("40", "0")
    report = json.loads(found["report"])
    assert found["digest"] == report["digests"]["train.jsonl"]
    assert report["training"] + report["test"] == 40
    alone = run(*words, "--test-share=0", outputs=outputs)
    assert alone.exit_code == 0
    assert written(outputs)["testData"] == ""


def test_a_curation_that_is_refused_ends_with_the_reasons(tmp_path: Path, outputs: Path) -> None:
    source = records(tmp_path / "raw.jsonl", *[{"prompt": "p", "completion": "the same"}] * 5)
    done = run(
        "curate", f"--source={source}", f"--folder={tmp_path / 'k'}", "--place=pvc:d/k", outputs=outputs
    )
    assert done.exit_code == 1
    assert "80% of 5 records would be left out" in done.stderr
    assert written(outputs) == {}


@pytest.mark.torch
def test_a_served_model_is_measured_on_records(server: Server, tmp_path: Path, outputs: Path) -> None:
    source = records(
        tmp_path / "test.jsonl",
        {"prompt": "def f():", "completion": "Return one."},
        {"prompt": "def g():", "completion": "Return two."},
        {"prompt": "def h():", "completion": "Never asked."},
    )
    words = (
        "evaluate-endpoint",
        f"--endpoint={server.url}/",
        "--model=m",
        f"--source={source}",
        "--max-prompts=2",
    )
    done = run(*words, outputs=outputs)
    assert done.exit_code == 0, done.output
    found = written(outputs)
    assert json.loads(found["metrics"]) == pytest.approx({"prompts": 2, "exactMatch": 0.5, "rougeL": 0.9})
    assert (float(found["exactMatch"]), float(found["rougeL"])) == pytest.approx((0.5, 0.9))
    assert {path for path, _ in server.asked} == {"/v1/completions"}
    assert all(body["temperature"] == 0 and body["max_tokens"] == 64 for _, body in server.asked)
    poor = run(*words, "--min-rouge-l=0.95", outputs=outputs)
    assert poor.exit_code == 1
    assert "rougeL is 0.9, and at least 0.95 was asked for" in poor.stderr


@pytest.mark.torch
def test_chats_are_asked_as_chats(server: Server, tmp_path: Path, outputs: Path) -> None:
    user, assistant = {"role": "user", "content": "def f():"}, {"role": "assistant", "content": "Return one."}
    source = records(tmp_path / "test.jsonl", {"messages": [user, assistant]})
    done = run(
        "evaluate-endpoint", f"--endpoint={server.url}", "--model=m", f"--source={source}", outputs=outputs
    )
    assert done.exit_code == 0, done.output
    [(path, body)] = server.asked
    assert (path, body["messages"]) == ("/v1/chat/completions", [user])
    assert written(outputs)["exactMatch"] == "1.0"


def test_records_without_prompts_are_refused(server: Server, tmp_path: Path, outputs: Path) -> None:
    source = records(tmp_path / "test.jsonl", {"text": "only text"})
    done = run(
        "evaluate-endpoint", f"--endpoint={server.url}", "--model=m", f"--source={source}", outputs=outputs
    )
    assert done.exit_code == 1
    assert "no record has a prompt; try chat or promptCompletion" in done.stderr
    assert not server.asked


def test_a_name_is_waited_for_and_then_answers(
    server: Server, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuneyard_trainer.stages.ask._PAUSE_SECONDS", 0.01)
    server.refusals = 3
    words = ("ask", f"--endpoint={server.url}", "--model=m", "--prompt=def f():")
    done = run(*words, "--patience=60", outputs=outputs)
    assert done.exit_code == 0, done.output
    assert written(outputs) == {"answer": " Return one.\n"}
    assert len(server.asked) == 4


def test_a_server_that_does_not_know_the_name_has_the_last_word(server: Server, outputs: Path) -> None:
    done = run("ask", f"--endpoint={server.url}", "--model=x", "--prompt=p", outputs=outputs)
    assert done.exit_code == 1
    assert "404" in done.stderr
    assert "The model x does not exist." in done.stderr
    assert written(outputs) == {}


def test_a_promotion_names_the_version(tmp_path: Path, outputs: Path) -> None:
    version, content = adapter(tmp_path / "scratch", "run-1")
    ClaimRegistry(tmp_path / "registry").publish(version, content, "uid", replace=False)
    words = ("promote", f"--registry={tmp_path / 'registry'}", "--name=answers")
    done = run(*words, "--candidate=run-1", outputs=outputs)
    assert done.exit_code == 0, done.output
    assert written(outputs) == {"modelName": "answers", "digest": version.digest}
    wrong = run(*words, "--candidate=run-2", outputs=outputs)
    assert wrong.exit_code == 1
    assert "nothing is published under this name" in wrong.stderr
