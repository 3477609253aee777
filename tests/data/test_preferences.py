# SPDX-License-Identifier: Apache-2.0
"""Preferences are read in every form that TRL has, and refused at their place with a way out."""

import json
from pathlib import Path
from typing import Any

import pytest
from tuneyard_data.checking import check_files
from tuneyard_data.loading import Reading, load_splits
from tuneyard_data.records import DataFile

ASK = {"role": "user", "content": "a colour?"}
RED = {"role": "assistant", "content": "red"}
SIX = {"role": "assistant", "content": "six"}


def checked(tmp_path: Path, records: list[Any], data_format: str = "preference") -> tuple[str, ...]:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = check_files({"training": [file]}, None, Reading(format=data_format), has_page=False)
    return tuple(problem.replace(str(file), "pairs.jsonl") for problem in found.problems)


FORMS = {
    "strings": {"prompt": "a colour?", "chosen": " red", "rejected": " six"},
    "messages": {"prompt": [ASK], "chosen": [RED], "rejected": [SIX]},
    "one message each": {"prompt": [ASK], "chosen": RED, "rejected": SIX},
    "the chat in a column of its own, as LLaMA-Factory has it": {
        "conversations": [{"from": "human", "value": "a colour?"}],
        "chosen": {"from": "gpt", "value": "red"},
        "rejected": {"from": "gpt", "value": "six"},
    },
    "whole chats": {"chosen": [ASK, RED], "rejected": [ASK, SIX]},
    "whole chats with their question as a string": {
        "prompt": "a colour?",
        "chosen": [ASK, RED],
        "rejected": [ASK, SIX],
    },
}


@pytest.mark.parametrize("record", FORMS.values(), ids=FORMS.keys())
def test_a_preference_has_one_prompt_and_two_answers(tmp_path: Path, record: dict[str, Any]) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(record) + "\n")
    named = DataFile("training", file, "pairs.jsonl")
    split = load_splits(Reading(format="preference"), [named], None, lambda _: None)["training"]
    (example,) = split.examples()
    assert example.rejected is not None
    prompt, answer = example.pieces
    other_prompt, other = example.rejected.pieces
    assert prompt == other_prompt
    assert not prompt.is_learned
    assert (answer.is_learned, other.is_learned) == (True, True)
    assert ("red" in answer.text, "six" in other.text) == (True, True)


REFUSED = {
    "one answer only": (
        {"prompt": "a", "chosen": "b", "reject": "c"},
        (
            "pairs.jsonl:1:1: column `rejected` is missing, and method dpo compares `chosen` with `rejected`; the columns"
            " are `prompt`, `chosen`, `reject`; did you mean `reject`?"
        ),
    ),
    "equal answers": (
        {"prompt": "a", "chosen": "b", "rejected": "b"},
        "pairs.jsonl:1:32: `chosen` and `rejected` are equal; try to leave the record out",
    ),
    "no prompt": (
        {"chosen": "a b", "rejected": "a c"},
        (
            "pairs.jsonl:1:1: `prompt` must be a string with content beside a string in `chosen` (got no such column); try it"
            " with what both answers begin with"
        ),
    ),
    "another name for the prompt": (
        {"question": "q", "chosen": "a b", "rejected": "a c"},
        (
            "pairs.jsonl:1:1: `prompt` must be a string with content beside a string in `chosen` (got no such column); try"
            " that name for `question`"
        ),
    ),
    "a string before messages": (
        {"prompt": "q", "chosen": [RED], "rejected": [SIX]},
        "pairs.jsonl:1:2: `prompt` is a string beside messages in `chosen`; try a list with a message of the user in it",
    ),
    "an empty answer": (
        {"prompt": "a", "chosen": "b", "rejected": " "},
        (
            'pairs.jsonl:1:32: `rejected` must be a string with content beside a string in `chosen` (got a string, " ");'
            " try strings in all of `prompt`, `chosen` and `rejected`, or lists of messages"
        ),
    ),
    "a list beside a string": (
        {"prompt": [ASK], "chosen": [RED], "rejected": "six"},
        (
            "pairs.jsonl:1:109: `rejected` must be a list of messages, as `chosen` is one (got a string,"
            ' "six")'
        ),
    ),
    "chats that differ earlier": (
        {"chosen": [ASK, RED], "rejected": [{"role": "user", "content": "a number?"}, SIX]},
        (
            "pairs.jsonl:1:97: `chosen` and `rejected` must be the same chat up to their last message; try a column"
            " `prompt` with the messages before the answers"
        ),
    ),
    "two messages for an answer": (
        {"prompt": [ASK], "chosen": [RED, ASK, RED], "rejected": [SIX]},
        (
            "pairs.jsonl:1:56: `chosen` must be one message, the answer to `prompt` (got 3); try the messages before it in"
            " `prompt`"
        ),
    ),
    "an answer of the user": (
        {"prompt": [ASK], "chosen": [RED], "rejected": [ASK | {"content": "no"}]},
        "pairs.jsonl:1:109: the last message of `rejected`: two user messages in a row; try to join them",
    ),
}


@pytest.mark.parametrize(("record", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_preference_is_refused_at_its_place(
    tmp_path: Path, record: dict[str, Any], said: str
) -> None:
    assert checked(tmp_path, [record]) == (said,)


def test_preferences_are_not_learned_in_silence_by_a_method_that_does_not_compare(tmp_path: Path) -> None:
    record = {"question": "a", "chosen": "b", "rejected": "c"}
    assert checked(tmp_path, [record], "auto") == (
        (
            "pairs.jsonl:1:1: `chosen` and `rejected` are preferences, which method: dpo learns from; try it, or"
            " dataset.template with the answer that is to be learned"
        ),
    )


def test_pairs_with_the_same_chosen_and_another_rejected_answer_are_no_duplicates(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    records = [FORMS["strings"], FORMS["strings"] | {"rejected": " two"}, FORMS["strings"]]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    report = check_files({"training": [file]}, None, Reading(format="preference"), has_page=False).report
    assert report is not None
    assert report.duplicates == 1
