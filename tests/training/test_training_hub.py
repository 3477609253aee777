# SPDX-License-Identifier: Apache-2.0
"""The hub path, with the real client against a local server that answers as a Hugging Face hub does."""

import json
import os
import subprocess
import sys

import pytest
from support.hub import COMMIT, TOKEN, Hub, running_hub
from tuneyard_api.pod_contract import EXIT_CODES, FailureClass, PrepareFacts, StageResult


@pytest.fixture
def hub():
    with running_hub() as server:
        yield server


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
def test_refusal_of_the_hub_is_reported_in_the_jobs_words(filled, prepare, asked, failure_class, message):
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
