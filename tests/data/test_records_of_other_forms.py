# SPDX-License-Identifier: Apache-2.0
"""Records in the forms of other programs are refused by the name of the form, with a way out; nothing beside a text is passed over in silence."""

import json
from pathlib import Path
from typing import Any

import pytest
from tuneyard_data.checking import Checked, check_files
from tuneyard_data.loading import Reading

MODEL = Path(__file__).parents[2] / "examples" / "models" / "tiny-llama"
ASK, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
PAIR = {"prompt": "q", "completion": "a"}


def checked(tmp_path: Path, *records: Any, data_format: str = "auto", model: Path | None = None) -> Checked:
    file = tmp_path / "t.json"
    file.write_text("\n".join(map(json.dumps, records)))
    return check_files({"training": [file]}, model, Reading(format=data_format), has_page=False)


FORMS = {
    "Alpaca": (
        {"instruction": "i", "input": None, "output": "o"},
        ('these are the columns of Alpaca `instruction`, `input`, `output`; try dataset.template with prompt "{{ instruction }}\\n'
        '{{ input }}\\n" and completion "{{ output }}"'),
    ),
    "Alpaca with a history": (
        {"instruction": "i", "input": "", "output": "o", "system": "s", "history": [["a", "b"]]},
        ('these are the columns of Alpaca `instruction`, `input`, `output`; try dataset.template with prompt "{{ instruction }}\\n'
        '{{ input }}\\n" and completion "{{ output }}" (and write what is in `system`, `history` into it too)'),
    ),
    "Dolly": (
        {"instruction": "i", "context": "c", "response": "r", "category": "x"},
        "these are the columns `instruction`, `context`, `response`; try dataset.template",
    ),
    "question and answer": ({"question": "q", "answer": "a"}, "these are the columns `question`, `answer`; try"),
    "a prompt with another answer": ({"prompt": "q", "response": "a"}, "these are the columns `prompt`, `response`; try"),
    "PaLM": ({"input_text": "q", "output_text": "a"}, "these are the columns `input_text`, `output_text`; try"),
    "source and target": ({"source": "q", "target": "a"}, "these are the columns `source`, `target`; try"),
    "splits": (
        {"train": [PAIR], "test": [PAIR]},
        ("this is one object with the splits `train`, `test`; try a file for each of them, which jq -c '.train[]' FILE >"
        " train.jsonl writes"),
    ),
    "one split": ({"train": [PAIR]}, "this is one object with the splits `train`; try a file for each"),
    "splits inside": ({"data": {"train": [PAIR]}}, "in `data`: this is one object with the splits `train`"),
    "another object around": (
        {"version": 1, "items": [PAIR]},
        "the column `items` holds records: this is one object around them; try what jq -c '.items[]' FILE writes",
    ),
    "records where a chat is expected": (
        {"conversations": [{"messages": [ASK, ANSWER]}]},
        "the column `conversations` holds records: this is one object around them",
    ),
    "a record under each name": (
        {"one": PAIR, "two": PAIR},
        "this is one object with a record under each name; try what jq -c '.[]' FILE writes",
    ),
    "rows of Hugging Face's viewer": (
        {"row_idx": 0, "row": PAIR, "truncated_cells": []},
        "the record is inside of the column `row`; try what jq -c '.row' FILE writes",
    ),
    "a batch of OpenAI": (
        {"custom_id": "1", "method": "POST", "body": {"model": "m", "messages": [ASK]}},
        "the record is inside of the column `body`",
    ),
    "Gemini": (
        {"systemInstruction": {"parts": [{"text": "s"}]}, "contents": [{"role": "user", "parts": [{"text": "q"}]}]},
        "this is Gemini's form of a chat; try `messages` with `content` for the text of `parts`",
    ),
    "Cohere": (
        {"message": "q", "chat_history": [{"role": "USER", "message": "x"}], "response": "a"},
        "this is Cohere's form; try `messages` with the turns of `chat_history`",
    ),
    "XTuner": ({"conversation": [{"input": "q", "output": "a"}]}, "this is XTuner's form of a chat; try `messages`"),
    "segments of Axolotl": ({"segments": [{"label": True, "text": "a"}]}, "these are parts of a text with a label each"),
    "turns without roles": ({"dialog": ["q", "a"]}, "`dialog` holds turns without roles; try `messages`"),
    "a chat as JSON under another name": (
        {"chat": json.dumps([ASK, ANSWER])},
        "the column `chat` holds a chat; try the name `messages` for it",
    ),
    "a message of OpenAssistant": (
        {"message_id": "1", "parent_id": None, "text": "q", "role": "prompter"},
        "this is one message of a chat; a record has all messages of a chat in a list, in its column `messages` (here a tree",
    ),
    "a tree of OpenAssistant": (
        {"message_tree_id": "1", "prompt": {"text": "q", "role": "prompter", "replies": []}},
        "this is a tree of OpenAssistant; try a record for each path of it",
    ),
    "an export of ChatGPT": ({"title": "t", "mapping": {"a": {}}}, "this is an export of ChatGPT, a tree of messages"),
    "preferences of OpenAI": (
        {"input": {"messages": [ASK]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]},
        "these are preferences in OpenAI's form; method: dpo reads `prompt` (here the messages of `input`), `chosen`",
    ),
    "preferences of LLaMA-Factory": (
        {"conversations": [ASK], "chosen": ANSWER, "rejected": ANSWER | {"content": "b"}},
        "`chosen` and `rejected` are preferences, which method: dpo learns from",
    ),
    "steps with labels": ({"prompt": "q", "completions": ["a"], "labels": [True]}, "these are steps with a label each"),
    "tokens": (
        {"input_ids": [1, 2], "labels": [1, 2], "attention_mask": [1, 1]},
        "these are ids of tokens, which a job makes itself with the model's tokenizer",
    ),
    "a table of one column": ({"text": ["a", "b"]}, "this is a table by its columns"),
    "an empty record": ({}, "no known format: the columns are none"),
    "a description of a data set": ({"features": {}, "splits": {}}, "this describes a data set and holds none of its records"),
    "the state of a data set": ({"_data_files": [], "_split": "train"}, "this describes a data set"),
    "a list of data sets": ({"mine": {"file_name": "a.json"}}, "this is LLaMA-Factory's list of data sets"),
    "a notebook": ({"cells": [], "nbformat": 4}, "this is a notebook of Jupyter"),
    "an error of a server": ({"error": "not found"}, "this looks like the error of a server in the place of the file"),
}  # fmt: skip


@pytest.mark.parametrize(("record", "message"), FORMS.values(), ids=FORMS.keys())
def test_forms_of_other_programs_are_refused_by_name(tmp_path: Path, record: Any, message: str) -> None:
    [said] = checked(tmp_path, record).problems
    assert said.startswith(f"{tmp_path}/t.json:1:1: {message}"), said


@pytest.mark.parametrize("data_format", ["chat", "promptCompletion", "text", "preference"])
def test_a_form_is_named_too_where_the_job_says_another_one(tmp_path: Path, data_format: str) -> None:
    [said] = checked(tmp_path, FORMS["Gemini"][0], data_format=data_format).problems
    assert "Gemini's form" in said


def test_records_beside_a_template_that_lacks_them_are_named(tmp_path: Path) -> None:
    from tuneyard_api.job_inputs import Template

    file = tmp_path / "t.json"
    file.write_text(json.dumps({"train": [{"q": "a", "a": "b"}]}))
    reading = Reading(template=Template(prompt="{{ q }}", completion="{{ a }}"))
    [said] = check_files({"training": [file]}, None, reading, has_page=False).problems
    assert "the columns are `train`; this is one object with the splits `train`; try a file for each" in said


def test_columns_of_objects_beside_a_known_form_do_not_hinder_it(tmp_path: Path) -> None:
    more = {"metadata": {"text": "t"}, "source": {"prompt": "p", "completion": "c"}, "parts": [{"text": "x"}]}
    assert checked(tmp_path, PAIR | more).problems == ()
    assert checked(tmp_path, {"messages": [ASK, ANSWER]} | more).problems == ()
    assert checked(tmp_path, {"text": "t", "role": "writer", "message_id": "1"}).problems == ()


BESIDE = {
    "a system message": (PAIR | {"system": "Be kind."}, "the column `system` is not read beside strings"),
    "tools": (PAIR | {"tools": [{}]}, "the column `tools` is not read beside strings"),
    "a history": (PAIR | {"history": [["a", "b"]]}, "the column `history` is not read beside strings"),
    "a suffix": (PAIR | {"suffix": "s"}, "the column `suffix` is not read beside strings"),
    "a context beside a preference": (
        {"prompt": "q", "chosen": "a", "rejected": "b", "context": "c"},
        "the column `context` is not read beside strings",
    ),
    "another prompt beside messages": (
        {"messages": [ASK, ANSWER], "prompt": "another"},
        "the column `prompt` is not read beside messages, which do not have its text",
    ),
    "messages as JSON": (
        {"prompt": json.dumps([ASK]), "completion": json.dumps([ANSWER])},
        "a string holds messages as JSON and is learned as that text",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("record", "note"), BESIDE.values(), ids=BESIDE.keys())
def test_what_is_not_read_is_said(tmp_path: Path, record: dict[str, Any], note: str) -> None:
    data_format = "preference" if "chosen" in record else "auto"
    [said] = checked(tmp_path, record, data_format=data_format).warnings
    assert said.startswith(f"dataset.training: 1 of 1 records: {note}")


def test_columns_that_are_empty_or_repeat_the_chat_are_no_warning(tmp_path: Path) -> None:
    records = [PAIR | {"system": "", "tools": [], "id": 1}, PAIR | {"system": None, "completion": "b"}]
    assert checked(tmp_path, *records).warnings == ()
    assert checked(tmp_path, {"messages": [ASK, ANSWER], "prompt": "q", "source": "s"}).warnings == ()


def test_messages_of_others_that_are_learned_are_refused(tmp_path: Path) -> None:
    """NeMo's `mask` names whose turns are not learned."""
    [said] = checked(tmp_path, {"mask": "Assistant", "conversations": [ASK, ANSWER]}).problems
    assert 't.json:1:2: `mask` is a string, "Assistant": it says whose messages are not learned' in said


def test_records_of_two_forms_are_refused_with_the_reason(tmp_path: Path) -> None:
    for records in ((PAIR, {"messages": [ASK, ANSWER]}), ({"messages": [ASK, ANSWER]}, PAIR)):
        [said] = checked(tmp_path, *records).problems
        assert said.endswith("; all records of a data set have the form of its first one")
    [said] = checked(tmp_path, PAIR | {"completion": [ANSWER]}).problems
    assert said.endswith("; try messages in `prompt` and in `completion`, or strings in both")


def test_a_text_that_brings_the_token_of_its_beginning_has_it_twice(tmp_path: Path) -> None:
    """Transformers has it twice as well, which nobody means who wrote `<s>` into the text."""
    texts = [{"text": "<s>[INST] q [/INST] a</s>"}, {"text": "[INST] q [/INST] b</s>"}]
    [said] = checked(tmp_path, *texts, model=MODEL).warnings
    assert said.startswith(
        "dataset.training: 1 of 2 records: the text begins with the token that the model's tokenizer writes"
    )
    assert checked(tmp_path, {"messages": [ASK, ANSWER]}, model=MODEL).warnings == ()
