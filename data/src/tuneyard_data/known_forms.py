# SPDX-License-Identifier: Apache-2.0
"""Names the forms of records that other programs have and that are not read here, and what to write instead."""

from collections.abc import Callable, Mapping
from typing import Any

from tuneyard_data.chats import COLUMNS, holds_messages, is_message, messages_in
from tuneyard_data.messages import role_of
from tuneyard_data.records import listed

_SPLITS = frozenset(
    ["train", "training", "test", "testing", "validation", "valid", "val", "eval", "evaluation", "dev"]
)
_QUESTIONS = (
    "instruction",
    "question",
    "query",
    "prompt",
    "inputs",
    "text_input",
    "input_text",
    "source",
    "input",
)
_CONTEXTS = ("input", "context")
_ANSWERS = ("output", "response", "answer", "completion", "outputs", "output_text", "target", "targets")
"""Names of columns with what is asked, what goes with it, and what is answered; in the order in which they are looked for."""
_TURNS = {
    "contents": (
        {"parts"},
        (
            "this is Gemini's form of a chat; try `messages` with `content` for the text of `parts`, and `systemInstruction` as the"
            " first message, of role system"
        ),
    ),
    "conversation": (
        {"input", "output"},
        (
            "this is XTuner's form of a chat; try `messages` with a message of the user for each `input` and one of the assistant"
            " for each `output`"
        ),
    ),
    "segments": (
        {"text", "label"},
        (
            "these are parts of a text with a label each, as Axolotl has them; try `prompt` and `completion`, or `messages` with"
            " `weight` 0 for answers that are not learned"
        ),
    ),
}
"""Columns of lists whose objects have some keys, and what to say of them."""
_DIALOGUES = ("dialog", "dialogue", "turns", "utterances", "conversation", "chat")
_ERRORS = frozenset({"error", "detail", "message", "status", "code", "documentation_url", "error_code"})


def form_of(values: Mapping[str, Any]) -> str | None:
    """What a record is that is none: one sentence with what to do; None if nothing is known of it."""
    return next((said for look in _LOOKS if (said := look(values)) is not None), None)


def wrapped_records(values: Mapping[str, Any]) -> str | None:
    """What to say of an object that is no record and has records inside."""
    if values.keys() <= _SPLITS and values and all(isinstance(each, list | dict) for each in values.values()):
        first = next(iter(values))
        return (
            f"this is one object with the splits {listed(values)}; try a file for each of them, which"
            f" jq -c '.{first}[]' FILE > {first}.jsonl writes"
        )
    for name, value in values.items():
        if isinstance(value, list) and value and _is_record(value[0]):
            return f"the column `{name}` holds records: this is one object around them; try what jq -c '.{name}[]' FILE writes"
        if isinstance(value, dict) and (inner := wrapped_records(value)) is not None:
            return f"in `{name}`: {inner}"
    if len(values) > 1 and all(map(_is_record, values.values())):
        return "this is one object with a record under each name; try what jq -c '.[]' FILE writes"
    inside = [name for name, value in values.items() if _is_record(value)]
    if len(inside) == 1:
        return f"the record is inside of the column `{inside[0]}`; try what jq -c '.{inside[0]}' FILE writes"
    return None


def _is_record(value: Any) -> bool:
    """Whether a value could be a record: an object with the columns of one."""
    if not isinstance(value, dict) or is_message(value):
        return False
    has_chat = any(holds_messages(messages_in(value.get(column))) for column in COLUMNS)
    has_strings = isinstance(value.get("text"), str) or _of_instructions(value) is not None
    return has_chat or has_strings or {"prompt", "completion"} <= value.keys()


def _of_tokens(values: Mapping[str, Any]) -> str | None:
    if isinstance(values.get("input_ids"), list):
        return "these are ids of tokens, which a job makes itself with the model's tokenizer; try the text that they were made of"
    return None


def holds_records(values: Mapping[str, Any]) -> bool:
    """Whether a column that should hold a chat holds records."""
    return any(
        isinstance(each := values.get(name), list)
        and bool(each)
        and "text" not in each[0]
        and _is_record(each[0])
        for name in COLUMNS
    )


def is_one_message(values: Mapping[str, Any]) -> bool:
    """Whether a record is one message of a chat."""
    return is_message(values) and (
        "text" not in values or role_of(values.get("role", values.get("author"))) is not None
    )


def _of_one_message(values: Mapping[str, Any]) -> str | None:
    if is_one_message(values):
        tree = (
            " (here a tree of OpenAssistant; try one path of it for each record)"
            if "parent_id" in values
            else ""
        )
        return f"this is one message of a chat; a record has all messages of a chat in a list, in its column `messages`{tree}"
    return None


def _of_trees(values: Mapping[str, Any]) -> str | None:
    if isinstance(values.get("prompt"), dict) and "replies" in values["prompt"]:
        return "this is a tree of OpenAssistant; try a record for each path of it, with `messages`"
    if isinstance(values.get("mapping"), dict):
        return "this is an export of ChatGPT, a tree of messages; try a record for each path of it, with `messages`"
    return None


def _of_preferences(values: Mapping[str, Any]) -> str | None:
    if {"preferred_output", "non_preferred_output"} <= values.keys():
        return (
            "these are preferences in OpenAI's form; method: dpo reads `prompt` (here the messages of `input`), `chosen`"
            " (`preferred_output`) and `rejected` (`non_preferred_output`)"
        )
    if isinstance(values.get("completions"), list) and isinstance(values.get("labels"), list):
        return "these are steps with a label each, as reward models learn from them; no method here does; try `prompt` and `completion`"
    return None


def _of_turns(values: Mapping[str, Any]) -> str | None:
    if {"message", "chat_history"} <= values.keys():
        return (
            "this is Cohere's form; try `messages` with the turns of `chat_history`, then `message` as the user's and the"
            " answer as the assistant's"
        )
    for name, (keys, said) in _TURNS.items():
        value = values.get(name)
        if isinstance(value, list) and value and isinstance(value[0], dict) and keys <= value[0].keys():
            return said
    spoken = [name for name in _DIALOGUES if isinstance(values.get(name), list) and values[name]]
    if spoken and all(isinstance(turn, str) for turn in values[spoken[0]]):
        return f"`{spoken[0]}` holds turns without roles; try `messages`, with `role` and `content` for each turn"
    return None


def _of_descriptions(values: Mapping[str, Any]) -> str | None:
    if {"features", "splits"} <= values.keys() or "_data_files" in values:
        return "this describes a data set and holds none of its records; try the file that has them, as .jsonl or .parquet"
    if values and all(
        isinstance(each, dict) and each.keys() & {"file_name", "hf_hub_url"} for each in values.values()
    ):
        return "this is LLaMA-Factory's list of data sets and holds no records; try the file that it names"
    if "nbformat" in values:
        return "this is a notebook of Jupyter and holds no records; try the file that it reads or writes"
    if values and values.keys() <= _ERRORS:
        return "this looks like the error of a server in the place of the file; try its address in a browser"
    return None


def _of_instructions(values: Mapping[str, Any]) -> str | None:
    """Columns of Alpaca, Dolly and many others: what a template makes of them is a choice of each job."""
    if values.keys() >= {"prompt", "completion"}:
        return None
    strings = {name for name, value in values.items() if isinstance(value, str | None)}
    asked = next((name for name in _QUESTIONS if name in strings), None)
    answer = next((name for name in _ANSWERS if name in strings), None)
    if asked is None or answer is None:
        return None
    more = next((name for name in _CONTEXTS if name in strings and name != asked), None)
    parts = "".join(f"{{{{ {name} }}}}\\n" for name in (asked, more) if name)
    known = " of Alpaca" if {"instruction", "output"} <= strings else ""
    left = [name for name in ("system", "history") if values.get(name)]
    rest = f" (and write what is in {listed(left)} into it too)" if left else ""
    return (
        f"these are the columns{known} {listed(filter(None, (asked, more, answer)))}; try dataset.template with prompt"
        f' "{parts}" and completion "{{{{ {answer} }}}}"{rest}'
    )


_LOOKS: tuple[Callable[[Mapping[str, Any]], str | None], ...] = (
    _of_tokens,
    _of_descriptions,
    _of_trees,
    _of_preferences,
    _of_one_message,
    _of_turns,
    wrapped_records,
    _of_instructions,
)
