# SPDX-License-Identifier: Apache-2.0
"""Reads a chat out of a record, in any of the forms that chats are written in.

Forms: `messages` (OpenAI), `conversations` (ShareGPT, with `from` and `value`), and `prompt` and `completion` as lists of
messages (TRL). Whatever a form says reaches the chat template or is refused by name; nothing is left out in silence.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tuneyard_data.messages import read_message, role_of, text_of_content
from tuneyard_data.records import Place, Record, RecordProblem, describe_value, did_you_mean, listed

COLUMNS = ("messages", "conversations")
ONE_FORM = "; all records of a data set have the form of its first one"
_FIRST_ROLES = ("system", "developer")
"""Roles of the first message alone."""
SYSTEM_COLUMNS = ("system", "system_prompt", "system_message")
"""Columns beside the messages that hold the text of the system's, as LLaMA-Factory has it."""
_NO_OPTIONS = frozenset(
    [
        "self",
        "messages",
        "conversation",
        "tools",
        "documents",
        "chat_template",
        "add_generation_prompt",
        "continue_final_message",
        "tokenize",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
        "sanitize_control_tokens",
        "tokenizer_kwargs",
    ]
)
"""Arguments of transformers' apply_chat_template that are no variables of the template, and variables that the record has."""
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True)
class Chat:
    """A chat as a chat template takes it."""

    messages: list[dict[str, Any]]
    learned: list[bool]
    """For each message whether it is learned; only the assistant's are."""
    tools: list[Any] | None = None
    documents: list[Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """Further variables of the template: the record's `chat_template_kwargs`."""

    @property
    def reasoning(self) -> list[str]:
        """The texts of thinking that the messages carry beside their content."""
        found = [message.get(key) for message in self.messages for key in REASONING_KEYS]
        return [str(text) for text in found if text is not None and str(text).strip()]


def is_chat(values: Mapping[str, Any]) -> bool:
    """Whether a record with these values holds a chat."""
    has_column = any(values.get(column) is not None for column in COLUMNS)
    return has_column or isinstance(values.get("prompt"), list)


def holds_messages(value: Any) -> bool:
    """Whether a value looks like the messages of a chat."""
    return isinstance(value, list) and bool(value) and all(map(is_message, value))


def is_message(value: Any) -> bool:
    """Whether a value looks like one message of a chat."""
    if not isinstance(value, dict) or len(value) < 2:  # noqa: PLR2004  who says it, and what
        return False
    return bool({"role", "from", "speaker"} & value.keys()) or role_of(value.get("author")) is not None


def read_chat(record: Record) -> Chat:
    """The chat of a record: known roles, in order, ending with the assistant.

    Raises:
        RecordProblem: for what can't be a chat, and for what can't be learned.
    """
    messages, prompts, column = _messages_of(record)
    try:
        read, learned = _read_messages(messages, prompts, column, record.place)
        if len(record.values) == 1:
            return Chat(read, learned)
        if system := _system_of(record):
            read, learned = _with_system(system, read, record.place), [False, *learned]
    except RecordProblem as problem:
        # Where a column begins in a record takes a while to find.
        raise RecordProblem(record.place_of(column), str(problem)) from None
    return Chat(
        read,
        learned,
        _tools_of(record),
        _list_or_none(record, "documents"),
        _options_of(record),
    )


def _system_of(record: Record) -> str | None:
    """The text of a system message that stands in a column of its own."""
    found: dict[str, str] = {}
    for column in SYSTEM_COLUMNS:
        value = record.values.get(column)
        if value is not None and not isinstance(value, str | list):
            raise RecordProblem(
                record.place_of(column), f"`{column}` must be a string (got {describe_value(value)})"
            )
        text = text_of_content(value, f"`{column}`", record.place)
        if text and text.strip():
            found[column] = text
    if len(set(found.values())) > 1:
        raise RecordProblem(
            record.place, f"{listed(found)} hold a system message each; try one column, without the others"
        )
    return next(iter(found.values()), None)


def _with_system(text: str, messages: list[dict[str, Any]], place: Place) -> list[dict[str, Any]]:
    if messages[0]["role"] in _FIRST_ROLES:
        raise RecordProblem(
            place,
            "the system's message stands both in a column of its own and among the messages; try one of them",
        )
    return [{"role": "system", "content": text}, *messages]


def _read_messages(
    messages: Any, prompts: int, column: str, place: Place
) -> tuple[list[dict[str, Any]], list[bool]]:
    """Each message as a template takes it, and whether it is learned."""
    if not isinstance(messages, list) or not messages:
        raise RecordProblem(
            place,
            f"`{column}` must be a list with content (got {describe_value(messages)}){_no_list(messages)}",
        )
    read, learned, before = [], [], None
    for index, message in enumerate(messages):
        name = f"{column}[{index}]" if index < prompts or not prompts else f"completion[{index - prompts}]"
        one, is_learned = read_message(message, name, place)
        before = _check_order(one["role"], before, name, place)
        read.append(one)
        learned.append(is_learned and index >= prompts)
    if before != "assistant":
        raise RecordProblem(
            place,
            f"the last message must be the assistant's, because the model learns to write it (got {before}); try to leave out"
            " what follows the last answer",
        )
    return read, learned


def _messages_of(record: Record) -> tuple[Any, int, str]:
    """The messages, how many of them are the prompt's alone, and the column that they begin in."""
    values = record.values
    there = [column for column in COLUMNS if values.get(column) is not None]
    if len(there) > 1:
        raise RecordProblem(
            record.place_of(there[1]), f"both {listed(there)} hold a chat; try one column, without the other"
        )
    there = there or [column for column in COLUMNS if column in values and values.get("prompt") is None]
    if there:
        return messages_in(values[there[0]]), 0, there[0]
    if isinstance(values.get("prompt"), list):
        prompt, completion = values["prompt"], values.get("completion")
        if not isinstance(completion, list):
            raise RecordProblem(
                record.place_of("prompt"),
                f"`prompt` is a list of messages, so `completion` must be one too (got {describe_value(completion)})",
            )
        return prompt + completion, len(prompt), "prompt"
    raise RecordProblem(
        record.place,
        f"column `messages` is missing; the columns are {listed(values)}{did_you_mean(['messages'], values, there=True)}"
        + ONE_FORM * (isinstance(values.get("prompt", values.get("text")), str)),
    )


def messages_in(value: Any) -> Any:
    """The messages that a column holds: the list itself, one as JSON, or a list of each key, as Parquet may have it."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError):
            return json.loads(value)
    if isinstance(value, dict) and {"role", "from"} & value.keys():
        columns = [inner for inner in value.values() if inner is not None]
        if all(isinstance(inner, list) for inner in columns) and len({len(inner) for inner in columns}) == 1:
            names = [name for name, inner in value.items() if inner is not None]
            rows = (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
            return [{name: inner for name, inner in row.items() if inner is not None} for row in rows]
    return value


def _no_list(value: Any) -> str:
    """What to try where messages are no list."""
    if not isinstance(value, str):
        return ""
    if value.lstrip().startswith("[{'"):
        return "; this is Python's spelling of a list: try what json.dumps writes"
    return "; try a list of objects with role and content"


def _check_order(role: str, before: str | None, name: str, place: Place) -> str:
    if role in _FIRST_ROLES and before is not None:
        raise RecordProblem(place, f"{name}: a {role} message must be the first one (got one after {before})")
    if role == "assistant" and before not in {"user", "tool"}:
        hint = {
            "assistant": "; try to join the two",
            None: "; try to leave it out, or the question before it",
        }.get(before, "")
        raise RecordProblem(
            place,
            f"{name}: the assistant must answer user or tool (got one after {before or 'nothing'}){hint}",
        )
    if role == "user" and before == "user":
        raise RecordProblem(place, f"{name}: two user messages in a row; try to join them")
    return role


def _tools_of(record: Record) -> list[Any] | None:
    if "functions" in record.values and "tools" not in record.values:
        functions = _list_or_none(record, "functions")
        return functions and [{"type": "function", "function": each} for each in functions]
    return _list_or_none(record, "tools")


def _list_or_none(record: Record, column: str) -> list[Any] | None:
    """A column that a chat template takes as a list; some data sets write it as a string."""
    value = record.values.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value or "null")
        except ValueError:
            value = record.values[column]
    if value is not None and not (isinstance(value, list) and all(isinstance(each, dict) for each in value)):
        raise RecordProblem(
            record.place_of(column), f"`{column}` must be a list of objects (got {describe_value(value)})"
        )
    return value or None


def _options_of(record: Record) -> dict[str, Any]:
    value = record.values.get("chat_template_kwargs")
    if isinstance(value, str):
        try:
            value = json.loads(value or "null")
        except ValueError:
            value = record.values["chat_template_kwargs"]
    if value is not None and not isinstance(value, dict):
        raise RecordProblem(
            record.place_of("chat_template_kwargs"),
            f"`chat_template_kwargs` must be an object (got {describe_value(value)})",
        )
    if taken := sorted(_NO_OPTIONS & set(value or {})):
        raise RecordProblem(
            record.place_of("chat_template_kwargs"),
            f"`chat_template_kwargs` holds variables of the chat template; it must not set {', '.join(taken)}",
        )
    return value or {}


def reference_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the last message; of one that calls tools alone, its calls as JSON."""
    last = messages[-1]
    if content := last.get("content"):
        return str(content)
    return json.dumps([call["function"] for call in last["tool_calls"]], ensure_ascii=False)
