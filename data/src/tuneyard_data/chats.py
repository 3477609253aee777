# SPDX-License-Identifier: Apache-2.0
"""Reads a chat out of a record, in any of the forms that chats are written in.

Forms: `messages` (OpenAI), `conversations` (ShareGPT, with `from` and `value`), and `prompt` and `completion` as lists of
messages (TRL). Whatever a form says reaches the chat template or is refused by name; nothing is left out in silence.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneyard_data.records import Place, Record, RecordProblem, describe_value, did_you_mean, listed

ROLES = ("system", "developer", "user", "assistant", "tool")
COLUMNS = ("messages", "conversations")
_MAY_BE_EMPTY = ("system", "developer", "tool")
"""Roles whose text may be empty: many data sets have an empty system message, and some tools answer nothing."""
_FIRST_ROLES = ("system", "developer")
"""Roles of the first message alone."""
_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": "assistant",
}
_LEARNED_KEYS = ("weight", "train", "training", "trainable", "loss")
"""Keys of a message that say whether it is learned: OpenAI and Mistral write `weight`, others the rest."""
_PARTLY_LEARNED_KEYS = ("train_detail", "training_detail")
"""Keys of a message that say which of its characters are learned, as Axolotl has them."""
SYSTEM_COLUMNS = ("system", "system_prompt")
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
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")


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
        found = [message.get(key) for message in self.messages for key in _REASONING_KEYS]
        return [text for text in found if isinstance(text, str) and text.strip()]


def is_chat(values: Mapping[str, Any]) -> bool:
    """Whether a record with these values holds a chat."""
    return any(column in values for column in COLUMNS) or isinstance(values.get("prompt"), list)


def read_chat(record: Record) -> Chat:
    """The chat of a record: known roles, in order, ending with the assistant.

    Raises:
        RecordProblem: for what can't be a chat, and for what can't be learned.
    """
    messages, prompts, column = _messages_of(record)
    try:
        read, learned = _read_messages(messages, prompts, column, record.place)
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
    for column in SYSTEM_COLUMNS:
        value = record.values.get(column)
        if value is not None and not isinstance(value, str):
            raise RecordProblem(
                record.place_of(column), f"`{column}` must be a string (got {describe_value(value)})"
            )
        if value and value.strip():
            return value
    return None


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
        hint = "; try the list itself, not its JSON as a string" if isinstance(messages, str) else ""
        raise RecordProblem(
            place, f"`{column}` must be a list with content (got {describe_value(messages)}){hint}"
        )
    read, learned, before = [], [], None
    for index, message in enumerate(messages):
        name = f"{column}[{index}]" if index < prompts or not prompts else f"completion[{index - prompts}]"
        one, is_learned = _message(message, name, place)
        before = _check_order(one["role"], before, name, place)
        read.append(one)
        learned.append(is_learned and index >= prompts)
    if before != "assistant":
        raise RecordProblem(
            place,
            f"the last message must be the assistant's, because the model learns to write it (got {before})",
        )
    return read, learned


def _messages_of(record: Record) -> tuple[Any, int, str]:
    """The messages, how many of them are the prompt's alone, and the column that they begin in."""
    values = record.values
    for column in COLUMNS:
        if column in values:
            return values[column], 0, column
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
        f"column `messages` is missing; the columns are {listed(values)}{did_you_mean(['messages'], values, there=True)}",
    )


def _message(message: Any, name: str, place: Place) -> tuple[dict[str, Any], bool]:
    """A message in OpenAI's form without what is null, and whether it is learned."""
    if not isinstance(message, dict):
        raise RecordProblem(
            place, f"{name} must be an object with role and content (got {describe_value(message)})"
        )
    one = {key: value for key, value in message.items() if value is not None}
    if "role" not in one and "from" in one:
        one = _of_sharegpt(one, name, place)
    role = one.get("role")
    if role == "function":
        raise RecordProblem(place, f"{name}.role: `function` is the former name of `tool`; try role `tool`")
    if role not in ROLES:
        hint = did_you_mean([str(role)], ROLES, there=True)
        raise RecordProblem(
            place, f"{name}.role must be one of {', '.join(ROLES)} (got {describe_value(role)}){hint}"
        )
    is_learned = _is_learned(one, name, place)
    if "function_call" in one:
        one["tool_calls"] = [{"type": "function", "function": one.pop("function_call")}]
    calls = _tool_calls(one, name, place)
    if calls:
        one["tool_calls"] = calls
    else:
        one.pop("tool_calls", None)
    content = _text_of(one.get("content"), name, place)
    if calls:
        # As a serving program has it: many templates fail on null and on no content at all, none on an empty text.
        one["content"] = content or ""
    elif content is not None and (content.strip() or role in _MAY_BE_EMPTY):
        one["content"] = content
    else:
        raise RecordProblem(
            place,
            f"{name}.content must be a string with content (got {describe_value(message.get('content', message.get('value')))})",
        )
    return one, is_learned and role == "assistant"


def _of_sharegpt(message: dict[str, Any], name: str, place: Place) -> dict[str, Any]:
    """A message with `from` and `value` in OpenAI's form."""
    speaker, value = message.pop("from"), message.pop("value", None)
    role = _SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise RecordProblem(
            place, f"{name}.from must be one of {', '.join(_SHAREGPT_ROLES)} (got {describe_value(speaker)})"
        )
    if speaker != "function_call":
        return message | {"role": role, "content": value}
    try:
        call = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        call = None
    calls = call if isinstance(call, list) else [call]
    return message | {"role": role, "tool_calls": [{"type": "function", "function": each} for each in calls]}


def _is_learned(message: dict[str, Any], name: str, place: Place) -> bool:
    """What the message says of it; the keys that say so are removed, as no template knows them."""
    is_learned = True
    if partly := [key for key in _PARTLY_LEARNED_KEYS if key in message]:
        raise RecordProblem(
            place,
            f"{name}.{partly[0]}: a message is learned whole or not at all; try `weight` 0 or 1 instead",
        )
    for key in _LEARNED_KEYS:
        value = message.pop(key, 1)
        if not isinstance(value, bool | int | float) or value not in {0, 1}:
            raise RecordProblem(
                place, f"{name}.{key} must be 0 or 1, or true or false (got {describe_value(value)})"
            )
        is_learned = is_learned and bool(value)
    return is_learned


def _text_of(content: Any, name: str, place: Place) -> str | None:
    """The text of a content: a string, or parts of type text."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [
            part["text"]
            for part in content
            if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        ]
        if len(texts) == len(content):
            return "".join(texts)
        kinds = [part.get("type") if isinstance(part, dict) else part for part in content]
        other = next((kind for kind in kinds if kind != "text"), None)
        raise RecordProblem(
            place,
            f"{name}.content: only parts of type text can be learned from (got {describe_value(other)}); try to leave the"
            " record out",
        )
    raise RecordProblem(
        place, f"{name}.content must be a string with content (got {describe_value(content)})"
    )


def _tool_calls(message: Mapping[str, Any], name: str, place: Place) -> list[dict[str, Any]]:
    """The calls of an assistant's message, with arguments as an object, as chat templates want them."""
    calls = message.get("tool_calls", [])
    if not isinstance(calls, list):
        raise RecordProblem(place, f"{name}.tool_calls must be a list (got {describe_value(calls)})")
    if calls and message["role"] != "assistant":
        raise RecordProblem(
            place, f"{name}.tool_calls: only the assistant calls tools (got {message['role']})"
        )
    return [_tool_call(call, f"{name}.tool_calls[{index}]", place) for index, call in enumerate(calls)]


def _tool_call(call: Any, name: str, place: Place) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RecordProblem(
            place,
            f"{name} must be an object with function.name and function.arguments (got {describe_value(call)})",
        )
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        # OpenAI writes the object as a string; templates would put that string into quotes once more.
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            arguments = None
    if not isinstance(arguments, dict):
        raise RecordProblem(
            place,
            f"{name}.function.arguments must be an object, or one written as a string"
            f" (got {describe_value(function.get('arguments'))})",
        )
    return {**call, "function": {**function, "arguments": arguments}}


def _check_order(role: str, before: str | None, name: str, place: Place) -> str:
    if role in _FIRST_ROLES and before is not None:
        raise RecordProblem(place, f"{name}: a {role} message must be the first one (got one after {before})")
    if role == "assistant" and before not in {"user", "tool"}:
        raise RecordProblem(
            place, f"{name}: the assistant must answer user or tool (got one after {before or 'nothing'})"
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
