# SPDX-License-Identifier: Apache-2.0
"""Stages that use a Data Store: records that are read there or uploaded for a service that trains, and what is published there."""

import json
from collections.abc import Iterator

import pytest
from support.nemo.data_store import Repository
from support.nemo.double import NemoDouble, served
from support.nemo.wire import Fault
from tuneyard_api import names
from tuneyard_api.data_stores import ENV_DATA_STORE_TOKEN, ENV_SOURCE_STORE_TOKEN
from tuneyard_api.pod_contract import FailureClass, PrepareFacts, PublishFacts

# The hub's client sends files in a way that its own HTTP library warns about.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
GOOD = [{"prompt": f"say number {n} =", "completion": f" {n % 7}"} for n in range(20)]
REPO = f"team/{names.dataset_name('demo', '1')}"


@pytest.fixture
def double() -> NemoDouble:
    return NemoDouble()


@pytest.fixture
def address(double: NemoDouble, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("tuneyard_trainer.fetch.patience._PAUSES_SECONDS", (0.0,))
    with served(double) as base:
        yield base


def jsonl_of(records: list[dict]) -> bytes:
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()


def uploaded(double: NemoDouble) -> dict[str, list[dict]]:
    tree = double.store.repositories["dataset", REPO].trees["main"]
    return {path: [json.loads(line) for line in content.splitlines()] for path, content in tree.items()}


@pytest.fixture
def prepare(address, model_files, jsonl, job_of, pods):
    """Runs the stage on records; the weights of the model are not there."""
    (model_files / "model.safetensors").unlink()
    return lambda records=GOOD, **changes: pods.run(
        "prepare", job_of(model_files, jsonl(records), dataStore=address, **changes)
    )


def test_the_records_are_uploaded_in_splits_and_the_model_needs_no_weights(double, prepare, pods):
    code, result = prepare()
    assert code == 0, result.failure
    facts = PrepareFacts.model_validate(result.facts)
    files = uploaded(double)
    assert set(files) == {"training/records.jsonl", "validation/records.jsonl"}
    assert (
        [len(rows) for rows in files.values()] == [facts.train_records, facts.validation_records] == [15, 5]
    )
    everything = [row for rows in files.values() for row in rows]
    assert sorted(everything, key=str) == sorted(GOOD, key=str)
    assert facts.train_sequences == 15
    assert facts.learned_tokens > 0
    assert double.store.namespaces == {"team"}
    assert not (pods.workspace / "prepared").exists()


def test_preferences_have_the_services_columns(double, prepare):
    pairs = [{"prompt": f"q{n}", "chosen": f" yes {n}", "rejected": f" no {n}"} for n in range(8)]
    assert prepare(pairs, method="dpo", dpo={"beta": 0.1}, dataset={"format": "preference"})[0] == 0
    (row, *_) = uploaded(double)["training/records.jsonl"]
    number = row["prompt"].removeprefix("q")
    assert row == {
        "prompt": f"q{number}",
        "chosen_response": f" yes {number}",
        "rejected_response": f" no {number}",
    }


def test_chats_have_the_services_columns(double, model_files, prepare):
    config = json.loads((model_files / "tokenizer_config.json").read_text())
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    (model_files / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    chats = [
        {"messages": [{"role": "user", "content": f"q {n}"}, {"role": "assistant", "content": f"a {n}"}]}
        for n in range(8)
    ]
    code, result = prepare(chats)
    assert code == 0, result.failure
    rows = [row for rows in uploaded(double).values() for row in rows]
    assert sorted(rows, key=str) == sorted(chats, key=str)


def test_plain_text_is_refused_with_its_place(double, prepare):
    _, result = prepare([{"text": f"line {n}"} for n in range(8)])
    assert result.failure.failure_class is FailureClass.BAD_INPUT
    assert "record 1 of the training data is plain text" in result.failure.message
    assert ("dataset", REPO) not in double.store.repositories


@pytest.mark.parametrize("answer", ["cut", 503, "lost"])
@pytest.mark.parametrize("path", ["/datastore/namespaces", "/repos/create", "/preupload/", "/commit/"])
def test_an_upload_that_is_cut_is_made_again(double, prepare, path, answer):
    double.faults.append(Fault("POST", path, answer))
    code, result = prepare()
    assert code == 0, result.failure
    assert sum(map(len, uploaded(double).values())) == len(GOOD)


def test_a_data_store_that_stays_away_is_tried_again_later(double, address, prepare):
    double.faults.append(Fault("*", "/v1/", 503, times=1000))
    _, result = prepare()
    assert result.failure.failure_class is FailureClass.UPSTREAM
    assert address in result.failure.message


def test_the_token_is_sent_and_a_wrong_one_is_said_without_it(double, prepare, monkeypatch):
    double.token = "right-one"
    monkeypatch.setenv(ENV_DATA_STORE_TOKEN, "wrong-one")
    _, result = prepare()
    assert result.failure.failure_class is FailureClass.PERMISSION_DENIED
    assert "wrong-one" not in result.model_dump_json()
    monkeypatch.setenv(ENV_DATA_STORE_TOKEN, "right-one")
    assert prepare()[0] == 0


def forget(pods, stage):
    """What the stage has done is not known any more: it runs again."""
    (pods.workspace / "results" / f"{stage}.json").unlink()


FILE = {"dataStore": "", "repo": "team/answers", "revision": "main", "path": "training/records.jsonl"}


@pytest.fixture
def with_records(double):
    """The Data Store has the records in a data set."""
    content = b"".join(json.dumps(record).encode() + b"\n" for record in GOOD)
    repository = double.store.repositories.setdefault(("dataset", "team/answers"), Repository())
    repository.commit("main", {FILE["path"]: content}, "records")
    return repository


@pytest.fixture
def read(address, model_files, job_of, pods):
    """Runs the stage prepare on a file of the Data Store."""

    def run(**changes):
        source = FILE | {"dataStore": address} | changes
        return pods.run("prepare", job_of(model_files, model_files, dataset={"training": source}))

    return run


def test_records_are_read_from_a_data_store(with_records, read, pods, monkeypatch):
    # A runtime that asks no hub may read from a Data Store all the same.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, result = read()
    assert code == 0, result.failure
    facts = PrepareFacts.model_validate(result.facts)
    assert (facts.train_records, facts.validation_records) == (15, 5)
    former = with_records.sha("main")
    with_records.commit("main", {FILE["path"]: jsonl_of(GOOD[:8])}, "fewer")
    forget(pods, "prepare")
    assert PrepareFacts.model_validate(read()[1].facts).train_records == 6
    forget(pods, "prepare")
    assert PrepareFacts.model_validate(read(revision=former)[1].facts).train_records == 15


def test_the_token_of_the_data_is_sent_and_a_wrong_one_is_said_without_it(
    double, with_records, read, monkeypatch
):
    double.token = "right-one"
    monkeypatch.setenv(ENV_DATA_STORE_TOKEN, "right-one")  # it is for what a pod writes
    monkeypatch.setenv(ENV_SOURCE_STORE_TOKEN, "wrong-one")
    _, result = read()
    assert result.failure.failure_class is FailureClass.PERMISSION_DENIED
    assert "the Data Store answers 401: try a secretRef" in result.failure.message
    assert "wrong-one" not in result.model_dump_json()
    monkeypatch.setenv(ENV_SOURCE_STORE_TOKEN, "right-one")
    assert read()[0] == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"repo": "team/none"}, "the Data Store answers 404: there is no such repository"),
        ({"revision": "v9"}, "the Data Store answers 404: there is no such revision"),
        ({"path": "training/none.jsonl"}, "the Data Store answers 404: the repository has no such file"),
    ],
)
def test_what_is_not_there_is_said(address, with_records, read, changes, said):
    _, result = read(**changes)
    assert result.failure.failure_class is FailureClass.DATA_MISSING
    assert said in result.failure.message
    assert address in result.failure.message


def test_the_adapter_is_published_there_and_listed(double, address, trained, pods):
    place = {"endpoint": address, "entityStore": address, "baseModel": "meta/tiny"}
    job = trained(registryPath=None, registryDataStore=place)
    for _ in range(2):
        code, result = pods.run("publish", job)
        assert code == 0, result.failure
        forget(pods, "publish")
    facts = PublishFacts.model_validate(result.facts)
    repository = double.store.repositories["model", "team/demo-adapter"]
    assert facts.path == f"hf://team/demo-adapter@{repository.sha('main')}"
    assert facts.adapter_name == f"team/demo-adapter@{facts.digest.removeprefix('sha256:')[:12]}"
    assert len(repository.commits) == 1
    assert {"readme.md", "version.json", "report.html", "adapter_config.json"} <= set(
        repository.trees["main"]
    )
    namespace, name = facts.adapter_name.split("/")
    entity = double.entities.kinds["models"].held[namespace, name]
    assert entity["base_model"] == "meta/tiny"
    assert entity["artifact"] == {"files_url": facts.path, "status": "upload_completed"}
