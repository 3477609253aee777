# SPDX-License-Identifier: Apache-2.0
"""The hub path, with the real client against a local server that answers as a Hugging Face hub does."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tuneyard_api.pod_contract import EXIT_CODES, FailureClass, PrepareFacts, StageResult

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_local"


class Hub(ThreadingHTTPServer):
    """Repositories as {(kind, name): {file: content}}; names that begin with `gated/` want a token."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.repositories = {}
        self.requests = []
        self.is_broken = False

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubHandler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.requests.append((self.command, self.path))
        if self.server.is_broken:
            return self.answer(503, b"down")
        path = self.path.partition("?")[0].strip("/")
        if path.startswith("api/"):
            return self.information(path.split("/"))
        return self.file(path)

    def information(self, parts):
        kind, repo = parts[1], "/".join(parts[2:4])
        files = self.allowed(kind, repo)
        if files is None:
            return None
        if parts[4:5] == ["revision"] and parts[5] not in {"main", COMMIT}:
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if parts[4:5] == ["tree"]:
            entries = [
                {"type": "file", "path": name, "size": len(c), "oid": git_id(c)} for name, c in files.items()
            ]
            return self.answer(200, json.dumps(entries).encode())
        body = {
            "id": repo,
            "sha": COMMIT,
            "siblings": [{"rfilename": name} for name in files],
            "private": False,
        }
        return self.answer(200, json.dumps(body).encode())

    def file(self, path):
        kind, path = (
            ("datasets", path.removeprefix("datasets/")) if path.startswith("datasets/") else ("models", path)
        )
        owner, name, _, _, *rest = path.split("/")
        files = self.allowed(kind, f"{owner}/{name}")
        if files is None:
            return None
        content = files.get("/".join(rest))
        if content is None:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        return self.answer(200, content, {"ETag": f'"{git_id(content)}"', "X-Repo-Commit": COMMIT})

    def allowed(self, kind, repo):
        files = self.server.repositories.get((kind, repo))
        has_token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if files is None:
            # As the hub does: strangers are not told whether a repository is private or not there.
            code, error = (404, "RepoNotFound") if has_token else (401, "RepoNotFound")
            self.answer(code, b"{}", {"X-Error-Code": error})
        elif repo.startswith("gated/") and not has_token:
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        else:
            return files
        return None

    def answer(self, code, content, headers=None):
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        """Quiet."""


def git_id(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324  as git has it


@pytest.fixture
def hub():
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def prepare(hub, pods, job_of, tmp_path):
    """Runs prepare as its pod does: HF_ENDPOINT is read when huggingface_hub is imported."""

    def run(repo="team/base", file="data/train.jsonl", revision="main", token=None):
        job = job_of(
            tmp_path,
            tmp_path,
            model={"repo": repo, "revision": revision, "path": None},
            dataset={"training": {"repo": "team/data", "revision": "main", "path": file}},
        )
        pods.give(job)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environ |= pods.environ() | {"HF_ENDPOINT": hub.address, **({"HF_TOKEN": token} if token else {})}
        command = [sys.executable, "-m", "tuneyard_trainer.main", "stage", "prepare"]
        done = subprocess.run(command, env=environ, check=False, timeout=120, capture_output=True, text=True)
        result = StageResult.model_validate_json(pods.log.read_bytes())
        assert done.returncode == (EXIT_CODES[result.failure.failure_class] if result.failure else 0), (
            done.stderr
        )
        return result

    return run


@pytest.fixture
def filled(hub, model_files):
    """A hub with a model, a gated one and a data set."""
    files = {path.name: path.read_bytes() for path in model_files.iterdir()}
    files["README.md"] = b"---\nlicense: apache-2.0\n---\n# Base\n"
    records = [{"prompt": f"say {n}", "completion": f" {n}"} for n in range(8)]
    hub.repositories = {
        ("models", "team/base"): {**files, "evil.py": b"raise SystemExit", "pytorch_model.bin": b"pickled"},
        ("models", "gated/base"): files,
        ("models", "team/pickled"): {
            **{n: c for n, c in files.items() if n != "model.safetensors"},
            "pytorch_model.bin": b"",
        },
        ("datasets", "team/data"): {
            "data/train.jsonl": "".join(json.dumps(r) + "\n" for r in records).encode()
        },
    }
    return hub


def test_model_and_data_come_from_the_hub_by_commit(filled, prepare, pods):
    facts = PrepareFacts.model_validate(prepare().facts)
    assert facts.model_revision == COMMIT
    assert facts.train_records == 6
    index = json.loads((pods.workspace / "prepared/index.json").read_text())
    assert index["model_licence"] == "apache-2.0"
    fetched = {path.split("/")[-1] for method, path in filled.requests if "/resolve/" in path}
    assert {"model.safetensors", "tokenizer.json"} <= fetched
    assert not fetched & {"evil.py", "pytorch_model.bin"}


def test_second_job_finds_the_model_in_the_cache(filled, prepare, pods):
    prepare()
    (pods.workspace / "results/prepare.json").unlink()
    filled.requests.clear()
    prepare()
    assert not [path for method, path in filled.requests if method == "GET" and "/resolve/" in path]


def test_gated_model_needs_a_token_and_comes_with_it(filled, prepare):
    failure = prepare(repo="gated/base").failure
    assert failure.failure_class is FailureClass.PERMISSION_DENIED
    assert "the hub answers 403" in failure.message
    assert "try a secretRef with a token" in failure.message
    assert prepare(repo="gated/base", token=TOKEN).outcome == "Succeeded"


REFUSALS = {
    "a model nobody may see": (
        {"repo": "team/nothing"},
        FailureClass.PERMISSION_DENIED,
        "the hub answers 401",
    ),
    "a model that is not there": (
        {"repo": "team/nothing", "token": TOKEN},
        FailureClass.MODEL_MISSING,
        "there is no such repository",
    ),
    "a revision that is not there": (
        {"revision": "v9"},
        FailureClass.MODEL_MISSING,
        "there is no such revision",
    ),
    "a file that is not there": ({"file": "data/none.jsonl"}, FailureClass.DATA_MISSING, "has no such file"),
    "pickled weights": ({"repo": "team/pickled"}, FailureClass.BAD_INPUT, "the weights are pickled"),
}


@pytest.mark.parametrize(("asked", "failure_class", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusal_of_the_hub_is_told_in_the_jobs_words(filled, prepare, asked, failure_class, message):
    failure = prepare(**asked).failure
    assert (failure.failure_class, message in failure.message) == (failure_class, True), failure.message


def test_hub_that_is_down_is_tried_again_by_the_operator(filled, prepare):
    filled.is_broken = True
    failure = prepare().failure
    assert failure.failure_class is FailureClass.UPSTREAM
    assert "503" in failure.message


def test_hub_that_nobody_answers_for_is_unavailable(filled, prepare, monkeypatch):
    monkeypatch.setattr(Hub, "address", "http://127.0.0.1:9")
    failure = prepare().failure
    assert failure.failure_class is FailureClass.UPSTREAM
    assert "the hub can't be reached" in failure.message
