# SPDX-License-Identifier: Apache-2.0
"""Which files come from a hub, and what happens when it or the way to it fails; the real client, a local server."""

import json
import os

import pytest
from huggingface_hub import constants
from support.hub import COMMIT, TOKEN, HubHandler, running_hub
from tuneyard_api.pod_contract import FailureClass, ResolvedSource
from tuneyard_trainer.fetch import patience
from tuneyard_trainer.fetch.hub import fetch_data_file, fetch_model
from tuneyard_trainer.pod.failures import StageFailure

BASE = {"config.json": b"{}", "tokenizer.json": b"{}", "chat_template.jinja": b"", "README.md": b"# Base"}
OTHER_COPIES = {
    "consolidated.safetensors": b"once more",
    "original/consolidated.00.safetensors": b"once more",
    "original/params.json": b"{}",
    "onnx/model.onnx": b"once more",
    "onnx/config.json": b"{}",
    "pytorch_model.bin": b"pickled",
    "tf_model.h5": b"once more",
    "model.gguf": b"once more",
    "modeling_base.py": b"raise SystemExit",
}
SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
INDEX = {
    "model.safetensors.index.json": json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}).encode()
}


@pytest.fixture
def hub(monkeypatch):
    with running_hub() as server:
        # The library reads HF_ENDPOINT and HF_TOKEN when it is imported.
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(patience, "_PAUSES_SECONDS", (0.01, 0.01))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def fetched(hub, cache, files):
    hub.repositories = {("models", "team/base"): files}
    folder, commit, names = fetch_model(ResolvedSource(repo="team/base", revision="main"), cache)
    assert (commit, sorted(names)) == (COMMIT, sorted(files))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WEIGHTS = {
    "one file": ({"model.safetensors": b"w"}, {"model.safetensors"}),
    "files of an index": (INDEX | dict.fromkeys(SHARDS, b"w"), {*INDEX, *SHARDS}),
    "an index and a copy in one file": (
        INDEX | dict.fromkeys(SHARDS, b"w") | {"model.safetensors": b"w"},
        {*INDEX, *SHARDS},
    ),
    "another name, which is told of later": ({}, {"consolidated.safetensors"}),
    "an index that can't be read, which is told of later": (
        {"model.safetensors.index.json": b"{", "model.safetensors": b"w"},
        {"model.safetensors.index.json", "model.safetensors", "consolidated.safetensors"},
    ),
}


@pytest.mark.parametrize(("weights", "expected"), WEIGHTS.values(), ids=WEIGHTS.keys())
def test_weights_come_once(hub, tmp_path, weights, expected):
    assert set(fetched(hub, tmp_path, BASE | OTHER_COPIES | weights)) == set(BASE) | expected


def test_chat_templates_of_other_names_come_too(hub, tmp_path):
    more = {"model.safetensors": b"w", "additional_chat_templates/tool_use.jinja": b"{{ messages }}"}
    assert set(fetched(hub, tmp_path, BASE | more)) == {*BASE, *more}


@pytest.mark.parametrize("trouble", [429, 500, 502, 503, 504])
def test_a_file_is_asked_for_again_after_a_failure_of_the_hub(hub, tmp_path, trouble, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.troubles = {"model.safetensors": [trouble, trouble]}
    assert fetched(hub, tmp_path, BASE | {"model.safetensors": b"w"})["model.safetensors"] == b"w"
    assert hub.troubles == {"model.safetensors": []}


def test_a_hub_that_stays_down_is_unavailable(hub, tmp_path):
    hub.troubles = {"model.safetensors": [503] * 9}
    with pytest.raises(StageFailure, match=r"file model\.safetensors: the hub answers 503") as caught:
        fetched(hub, tmp_path, BASE | {"model.safetensors": b"w"})
    assert caught.value.failure_class is FailureClass.UPSTREAM
    assert len(hub.troubles["model.safetensors"]) == 6


def test_a_pause_that_the_hub_asks_for_is_kept_and_a_long_one_is_left_to_the_operator(
    hub, tmp_path, monkeypatch
):
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    hub.pauses = ["7", "3600"]
    hub.is_broken = True
    with pytest.raises(StageFailure, match="the hub answers 503"):
        fetch_model(ResolvedSource(repo="team/base", revision="main"), tmp_path)
    assert slept == [7.0]


def test_a_file_that_breaks_off_goes_on_where_it_broke(hub, tmp_path):
    hub.troubles = {"model.safetensors": ["break", "break"]}
    weights = os.urandom(8 * 2**20)
    assert fetched(hub, tmp_path, BASE | {"model.safetensors": weights})["model.safetensors"] == weights
    starts = [int(asked[6:-1] or 0) for name, asked in hub.ranges if name == "model.safetensors"]
    assert starts == sorted(starts)
    assert starts[1:] == [4 * 2**20, 6 * 2**20]


def test_a_broken_data_file_is_asked_for_again_too(hub, tmp_path):
    hub.repositories = {("datasets", "team/data"): {"train.jsonl": b"{}"}}
    hub.troubles = {"train.jsonl": [503, 502]}
    source = ResolvedSource(repo="team/data", revision="main", path="train.jsonl")
    assert fetch_data_file(source, tmp_path).read_bytes() == b"{}"


NO_HUB = {
    "a page of a proxy": b"<html>Sign in</html>",
    "no object": b"[]",
    "an object of something else": b"{}",
    "no commit": b'{"id": "team/base", "siblings": []}',
}


@pytest.mark.parametrize("body", NO_HUB.values(), ids=NO_HUB.keys())
def test_an_answer_that_is_none_of_a_hub_is_no_bug(hub, tmp_path, monkeypatch, body):
    monkeypatch.setattr(HubHandler, "information", lambda handler, _: handler.answer(200, body))
    with pytest.raises(StageFailure, match=r"none of a hub|names no commit") as caught:
        fetch_model(ResolvedSource(repo="team/base", revision="main"), tmp_path)
    assert caught.value.failure_class is FailureClass.UPSTREAM


@pytest.mark.parametrize(
    ("status", "failure_class"),
    [
        (403, FailureClass.PERMISSION_DENIED),
        (404, FailureClass.DATA_MISSING),
        (410, FailureClass.DATA_MISSING),
    ],
)
def test_a_refusal_of_one_file_is_none_of_the_way_to_the_hub(
    hub, tmp_path, monkeypatch, status, failure_class
):
    hub.repositories = {("datasets", "team/data"): {"train.jsonl": b"{}"}}
    monkeypatch.setattr(HubHandler, "content", lambda handler, *_: handler.answer(status, b"no"))
    with pytest.raises(StageFailure, match=f"the hub answers {status}") as caught:
        fetch_data_file(ResolvedSource(repo="team/data", revision="main", path="train.jsonl"), tmp_path)
    assert caught.value.failure_class is failure_class


def test_a_file_of_another_size_than_was_said_is_no_bug(hub, tmp_path, monkeypatch):
    def shorter(handler, _, content):
        headers = {"ETag": '"1"', "X-Repo-Commit": COMMIT}
        handler.answer(200, content if handler.command == "HEAD" else content[:1], headers)

    hub.repositories = {("datasets", "team/data"): {"train.jsonl": b"{}"}}
    monkeypatch.setattr(HubHandler, "content", shorter)
    with pytest.raises(StageFailure, match="should be of size 2 but has size 1") as caught:
        fetch_data_file(ResolvedSource(repo="team/data", revision="main", path="train.jsonl"), tmp_path)
    assert caught.value.failure_class is FailureClass.UPSTREAM


DENIED = {
    "a gated repository": ("gated/base", None, "the repository is gated; accept its terms on the hub"),
    "a token that has expired": (
        "team/base",
        "hf_old",
        "the token is not valid, or has expired; make a new one",
    ),
    "a repository that nobody may see": ("team/none", None, "it is private or gated, or does not exist"),
}


@pytest.mark.parametrize(("repo", "token", "message"), DENIED.values(), ids=DENIED.keys())
def test_a_refusal_says_what_to_do(  # noqa: PLR0917  columns of the table
    hub, tmp_path, monkeypatch, repo, token, message
):
    hub.repositories = dict.fromkeys([("models", "gated/base"), ("models", "team/base")], BASE)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(StageFailure) as caught:
        fetch_model(ResolvedSource(repo=repo, revision="main"), tmp_path)
    assert (caught.value.failure_class, message in str(caught.value)) == (
        FailureClass.PERMISSION_DENIED,
        True,
    ), str(caught.value)
    if token:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.repositories[("models", "team/base")] = BASE | {"model.safetensors": b"w"}
        fetch_model(ResolvedSource(repo=repo, revision="main"), tmp_path)
