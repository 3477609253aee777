# SPDX-License-Identifier: Apache-2.0
"""The stage prepare as a pod runs it, on good and on bad input; without PyTorch."""

import json

import pytest
from tuneyard_api.pod_contract import EXIT_CODES, FailureClass, PrepareFacts
from tuneyard_trainer.workspace.prepared import Index, Split, load_prompts

GOOD = [{"prompt": f"say number {n} =", "completion": f" {n % 7}"} for n in range(20)]


def failed(pods, job):
    code, result = pods.run("prepare", job)
    assert result.outcome == "Failed"
    assert code == EXIT_CODES[result.failure.failure_class]
    assert not (pods.workspace / "prepared").exists()
    return result.failure.failure_class, result.failure.message


@pytest.fixture
def answer_to(model_files, jsonl, job_of, pods):
    """Failure class and message for a data file, or for good data."""

    def run(data=None):
        return failed(
            pods, job_of(model_files, data or jsonl(GOOD), runtime={"modelFamilies": ["llama", "qwen2"]})
        )

    return run


def test_prepared_splits_prompts_and_preview(model_files, jsonl, job_of, pods):
    job = job_of(model_files, jsonl(GOOD))
    code, result = pods.run("prepare", job)
    assert code == 0
    facts = PrepareFacts.model_validate(result.facts)
    assert (facts.train_records, facts.validation_records, facts.test_records) == (15, 5, 0)
    index = Index.load(pods.workspace)
    assert (index.splits, index.evaluation_split) == (["training", "validation"], "validation")
    training = Split.load(pods.workspace / "prepared/training.safetensors")
    assert len(training.tokens) == facts.train_tokens
    assert training.learned_per_sequence().sum() == facts.learned_tokens
    assert len(training) == facts.train_sequences < facts.train_records
    assert len(load_prompts(pods.workspace / "prepared/prompts.jsonl")) == 4
    preview = (pods.workspace / "prepared/preview.txt").read_text()
    assert preview.count("--- record") == 3
    assert "<s>say number 0 =⟦ 0</s>⟧" in preview


def test_same_seed_same_bytes(model_files, jsonl, job_of, pods, tmp_path):
    job = job_of(model_files, jsonl(GOOD))
    contents = []
    for _ in range(2):
        (pods.workspace / "results/prepare.json").unlink(missing_ok=True)
        assert pods.run("prepare", job)[0] == 0
        contents.append({path.name: path.read_bytes() for path in (pods.workspace / "prepared").iterdir()})
    assert contents[0] == contents[1]


def test_second_run_of_the_same_plan_returns_at_once(model_files, jsonl, job_of, pods):
    data = jsonl(GOOD)
    assert pods.run("prepare", job_of(model_files, data))[0] == 0
    data.unlink()
    # The uid is not part of the plan: a job that is applied again finds its results.
    assert pods.run("prepare", job_of(model_files, data, uid="2"))[0] == 0
    assert (
        pods.run("prepare", job_of(model_files, data, training={"seed": 8}))[0]
        == EXIT_CODES[FailureClass.DATA_MISSING]
    )


def test_loss_on_all_learns_prompts_too(model_files, jsonl, job_of, pods):
    counts = []
    for loss_on in ("completion", "all"):
        job = job_of(model_files, jsonl(GOOD), dataset={"lossOn": loss_on, "validationFraction": 0.0})
        counts.append(PrepareFacts.model_validate(pods.run("prepare", job)[1].facts))
    assert (
        counts[0].learned_tokens
        < counts[1].learned_tokens
        == counts[1].train_tokens - counts[1].train_records
    )


DATA_PROBLEMS = {
    "empty file": ("", FailureClass.BAD_INPUT, "the training data set is empty"),
    "only blank lines": ("\n \n", FailureClass.BAD_INPUT, "the training data set is empty"),
    "malformed at line 3": (
        '{"text": "a"}\n{"text": "b"}\n{"text": "c}\n',
        FailureClass.BAD_INPUT,
        "train.jsonl:3:10: malformed JSON: unterminated string",
    ),
    "wrong columns": (
        '{"question": "a", "answer": "b"}\n',
        FailureClass.BAD_INPUT,
        "these are the columns `question`, `answer`; try dataset.template",
    ),
    "two problems at once": (
        '{"text": "a"}\n{"text": ""}\n{"txt": "b"}\n',
        FailureClass.BAD_INPUT,
        "2 problems in the data set:",
    ),
    "one record can't be split": (
        '{"text": "a"}\n',
        FailureClass.BAD_INPUT,
        "1 different record can't be held out",
    ),
}


@pytest.mark.parametrize(
    ("content", "failure_class", "message"), DATA_PROBLEMS.values(), ids=DATA_PROBLEMS.keys()
)
def test_bad_data_is_answered_precisely(answer_to, tmp_path, content, failure_class, message):
    (tmp_path / "train.jsonl").write_text(content)
    answer = answer_to(tmp_path / "train.jsonl")
    assert answer[0] is failure_class
    assert message in answer[1]


def test_the_log_has_the_problems_that_the_result_has_no_room_for(model_files, jsonl, job_of, pods, capsys):
    data = jsonl([{"prompt": n, "completion": "b" * 100} for n in range(30)])
    message = failed(pods, job_of(model_files, data))[1]
    assert message.startswith("30 problems in the data set:")
    assert message.endswith("more; see the log")
    assert "train.jsonl:20:2: `prompt` must be" not in message
    log = capsys.readouterr().out
    assert "train.jsonl:20:2: `prompt` must be" in log
    assert "... and 10 more problems" in log


def test_problems_of_all_splits_are_reported_together(model_files, jsonl, tmp_path, job_of, pods):
    test = tmp_path / "test.jsonl"
    test.write_text('{"prompt": "a"}\n')
    data = jsonl([*GOOD, {"prompt": 1, "completion": "b"}])
    message = failed(pods, job_of(model_files, data, dataset={"test": {"path": str(test)}}))[1]
    assert "train.jsonl:21:2: `prompt` must be a string (got a number, 1)" in message
    assert "test.jsonl:1:1: column `completion` is missing" in message


def test_everything_truncated_is_said_in_numbers(model_files, jsonl, job_of, pods):
    data = jsonl([{"prompt": "x" * 90, "completion": "y"}, {"prompt": "x" * 120, "completion": "y"}])
    failure_class, message = failed(pods, job_of(model_files, data, training={"maxSequenceLength": 32}))
    assert failure_class is FailureClass.BAD_INPUT
    assert (
        "of 2 records none has a learned token within maxSequenceLength 32; they have 93 to 123 tokens"
        in message
    )


def test_cut_and_dropped_records_are_counted_and_warned_of(model_files, jsonl, job_of, pods):
    long = [{"prompt": "x" * 20, "completion": "y" * 40}] * 2 + [{"prompt": "z" * 60, "completion": "y"}]
    job = job_of(
        model_files,
        jsonl(GOOD + long),
        training={"maxSequenceLength": 32},
        dataset={"validationFraction": 0.0},
    )
    facts = PrepareFacts.model_validate(pods.run("prepare", job)[1].facts)
    assert facts.train_records == 22
    assert facts.truncated_records == 3
    assert facts.warnings == (
        "training: 1 of 23 records dropped: their prompt alone fills maxSequenceLength 32",
        "training: 3 of 23 records cut to 32 tokens; the longest has 63",
        "training: 1 records are exact duplicates of others",
    )


def test_leakage_between_splits_is_warned_of(model_files, jsonl, tmp_path, job_of, pods):
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps(GOOD[3]) + "\n" + json.dumps({"prompt": "new", "completion": "one"}) + "\n")
    job = job_of(model_files, jsonl(GOOD), dataset={"test": {"path": str(test)}})
    facts = PrepareFacts.model_validate(pods.run("prepare", job)[1].facts)
    assert facts.warnings[0].startswith("test: 1 of 2 records are in the training data as well")
    assert (facts.test_records, Index.load(pods.workspace).evaluation_split) == (2, "test")


def test_equal_records_stay_on_one_side_of_the_split(model_files, jsonl, job_of, pods):
    job = job_of(model_files, jsonl([*GOOD, *GOOD]))
    facts = PrepareFacts.model_validate(pods.run("prepare", job)[1].facts)
    assert (facts.train_records, facts.validation_records) == (30, 10)


def test_model_with_fewer_positions_than_asked_is_used_to_its_end(model_files, jsonl, job_of, pods):
    job = job_of(model_files, jsonl(GOOD), training={"maxSequenceLength": 1024})
    facts = PrepareFacts.model_validate(pods.run("prepare", job)[1].facts)
    assert facts.warnings == ("maxSequenceLength 1024 is above the model's 256 positions, which are used",)


@pytest.mark.parametrize(
    "case",
    [
        ("llama", None),
        ("falcon", "packing would undo the model's attention window of 16 tokens"),
        ("gpt_oss", "nothing in transformers keeps packed records apart in the family gpt_oss"),
    ],
)
def test_records_share_a_sequence_only_where_that_was_measured(write_model, jsonl, job_of, pods, case):
    family, reason = case
    job = job_of(write_model(model_type=family, sliding_window=16), jsonl(GOOD))
    facts = PrepareFacts.model_validate(pods.run("prepare", job)[1].facts)
    assert (facts.train_sequences == facts.train_records) == bool(reason)
    assert list(facts.warnings) == ([f"the records are not packed: {reason}"] if reason else [])


def test_a_family_that_nobody_measured_is_not_packed(write_model, jsonl, job_of, pods, monkeypatch):
    monkeypatch.setattr("tuneyard_trainer.model.families._measured", dict)
    facts = PrepareFacts.model_validate(pods.run("prepare", job_of(write_model(), jsonl(GOOD)))[1].facts)
    assert facts.warnings == ("the records are not packed: nobody measured the family llama",)


def without(*names):
    def change(folder):
        for name in names:
            (folder / name).unlink()

    return change


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def configured(**values):
    def change(folder):
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | values))

    return change


def sharded(folder):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")


def without_end(folder):
    (folder / "tokenizer_config.json").write_text("{}")


def weights_of(content):
    return lambda folder: (folder / "model.safetensors").write_bytes(content)


def with_file(name, content):
    return lambda folder: (folder / name).write_text(content)


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


MODEL_PROBLEMS = {
    "no configuration": (without("config.json"), FailureClass.MODEL_MISSING, "missing config.json; there is"),
    "neither tokenizer nor weights": (
        without("tokenizer.json", "model.safetensors"),
        FailureClass.MODEL_MISSING,
        "missing tokenizer.json, model.safetensors",
    ),
    "a shard is missing": (sharded, FailureClass.MODEL_MISSING, "missing model-00002-of-00002.safetensors"),
    "pickled weights": (pickled, FailureClass.BAD_INPUT, "the weights are pickled (pytorch_model.bin)"),
    "its own Python": (
        configured(auto_map={"AutoModel": "m.M"}),
        FailureClass.BAD_INPUT,
        "comes with its own Python",
    ),
    "a family that the runtime lacks": (
        configured(model_type="mamba"),
        FailureClass.BAD_INPUT,
        "runtime hf-cpu trains llama, qwen2 (got model_type mamba)",
    ),
    "no model_type": (configured(model_type=None), FailureClass.BAD_INPUT, "config.json names no model_type"),
    "a foreign tokenizer": (
        configured(vocab_size=100),
        FailureClass.BAD_INPUT,
        "the tokenizer has token ids up to",
    ),
    "no end of answers": (without_end, FailureClass.BAD_INPUT, "no token ends an answer"),
    "a pointer of Git LFS": (
        weights_of(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
        FailureClass.MODEL_MISSING,
        "model.safetensors is the pointer that Git LFS leaves and not the file; try `git lfs pull` there",
    ),
    "weights that are cut": (cut, FailureClass.MODEL_MISSING, "model.safetensors is cut: it has "),
    "a header that is cut": (
        weights_of((1000).to_bytes(8, "little") + b"{}"),
        FailureClass.MODEL_MISSING,
        "model.safetensors is cut: it has 10 bytes, and its header needs 1008",
    ),
    "weights of another kind": (
        weights_of(b"GGUF" * 9),
        FailureClass.BAD_INPUT,
        "model.safetensors is no safetensors file",
    ),
    "an index of nothing": (
        with_file("model.safetensors.index.json", "{}"),
        FailureClass.BAD_INPUT,
        "it has no weight_map from tensors to files",
    ),
    "an adapter beside the weights": (
        with_file("adapter_config.json", '{"peft_type": "LORA"}'),
        FailureClass.BAD_INPUT,
        "the folder has an adapter_config.json too",
    ),
    "a value that the family does not have": (
        configured(hidden_size="wide"),
        FailureClass.BAD_INPUT,
        "config.json: ",
    ),
}


@pytest.mark.parametrize(
    ("change", "failure_class", "message"), MODEL_PROBLEMS.values(), ids=MODEL_PROBLEMS.keys()
)
def test_bad_model_is_answered_precisely(answer_to, model_files, change, failure_class, message):
    change(model_files)
    answer = answer_to()
    assert answer[0] is failure_class
    assert message in answer[1]


def test_missing_model_folder_names_its_neighbours(model_files, jsonl, job_of, pods):
    failure_class, message = failed(pods, job_of(model_files.with_name("bse"), jsonl(GOOD)))
    assert failure_class is FailureClass.MODEL_MISSING
    assert "there is no such folder" in message
    assert "base" in message


def test_missing_data_file_names_a_close_one(model_files, jsonl, job_of, pods):
    data = jsonl(GOOD)
    failure_class, message = failed(pods, job_of(model_files, data.with_name("trian.jsonl")))
    assert failure_class is FailureClass.DATA_MISSING
    assert f"did you mean {data}?" in message


def test_folder_with_one_data_file_is_enough_and_with_two_it_is_not(
    model_files, tmp_path, jsonl, job_of, pods
):
    folder = tmp_path / "data"
    folder.mkdir()
    assert failed(pods, job_of(model_files, folder))[0] is FailureClass.DATA_MISSING
    jsonl(GOOD).rename(folder / "a.jsonl")
    assert pods.run("prepare", job_of(model_files, folder))[0] == 0
    (folder / "b.jsonl").write_text("")
    code, result = pods.run("prepare", job_of(model_files, folder, training={"seed": 8}))
    assert code == EXIT_CODES[FailureClass.BAD_INPUT]
    assert "try pvc.path with one of a.jsonl, b.jsonl" in result.failure.message
    (folder / "state.json").write_text("{}")
    code, result = pods.run("prepare", job_of(model_files, folder, training={"seed": 9}))
    assert code == EXIT_CODES[FailureClass.BAD_INPUT]
    assert "this is what save_to_disk of Hugging Face's datasets writes; try" in result.failure.message


def test_job_file_of_another_schema_is_refused(model_files, jsonl, job_of, pods):
    pods.give(job_of(model_files, jsonl(GOOD)))
    content = json.loads(pods.job_file.read_text()) | {"schemaVersion": 2}
    pods.job_file.write_text(json.dumps(content))
    process = pods.start("prepare")
    assert process.wait(240) == EXIT_CODES[FailureClass.BAD_INPUT]
    assert "no resolved job of schema version 1: schemaVersion" in pods.result().failure.message


def test_prepare_runs_without_pytorch(model_files, jsonl, job_of, pods):
    """Runs in a process in which the import fails, as in an image without the package."""
    import os
    import subprocess
    import sys

    pods.give(job_of(model_files, jsonl(GOOD)))
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'peft', 'matplotlib')));"
        "from tuneyard_trainer.main import main; main(['stage', 'prepare'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | pods.environ(), check=False, timeout=300
    )
    assert done.returncode == 0


def test_full_disk_ends_as_disk_full(model_files, jsonl, job_of, pods, monkeypatch):
    import errno

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tuneyard_trainer.pod.results.durable.write_file", refuse)
    code, result = pods.run("prepare", job_of(model_files, jsonl(GOOD)))
    assert code == EXIT_CODES[FailureClass.DISK_FULL]
    assert "try a larger workspace.sizeGiB" in result.failure.message
