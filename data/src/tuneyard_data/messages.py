# SPDX-License-Identifier: Apache-2.0
"""Reads one message of a chat: its role, its text, its calls, and whether it is learned."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tuneyard_data.records import Place, RecordProblem, describe_value, did_you_mean, listed

ROLES = ("system", "developer", "user", "assistant", "tool")
_MAY_BE_EMPTY = ("system", "developer", "tool")
"""Roles whose text may be empty: many data sets have an empty system message, and some tools answer nothing."""
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
_MAYBE_LEARNED = re.compile(r"(^|_)(train\w*|learn\w*|loss|mask\w*|weights?|ignore\w*)($|_)")
"""Other keys that may say so; what they mean is not known."""
_PARTLY_LEARNED_KEYS = ("train_detail", "training_detail")
"""Keys of a message that say which of its characters are learned, as Axolotl has them."""
_PLAIN = 2
"""Keys of a message that has a role and a content alone."""


def read_message(message: Any, name: str, place: Place) -> tuple[dict[str, Any], bool]:
    """A message in OpenAI's form without what is null, and whether it is learned."""
    if _is_plain(message):
        # The same as below, in a fifth of the time.
        return message.copy(), message["role"] == "assistant"
    if not isinstance(message, dict):
        raise RecordProblem(
            place, f"{name} must be an object with role and content (got {describe_value(message)})"
        )
    one = {key: value for key, value in message.items() if value is not None}
    if "from" in one or "value" in one:
        one = _of_sharegpt(one, name, place)
    role = one.get("role")
    if role == "function":
        raise RecordProblem(place, f"{name}.role: `function` is the former name of `tool`; try role `tool`")
    if role not in ROLES:
        meant = _SHAREGPT_ROLES.get(str(role).lower())
        hint = f"; did you mean `{meant}`?" if meant else did_you_mean([str(role)], ROLES, there=True)
        raise RecordProblem(
            place, f"{name}.role must be one of {', '.join(ROLES)} (got {describe_value(role)}){hint}"
        )
    is_learned = _is_learned(one, name, place)
    if "function_call" in one:
        if one.get("tool_calls"):
            raise RecordProblem(place, f"{name} has both `tool_calls` and its former name `function_call`")
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
        said = [message[key] for key in ("content", "value") if key in message]
        got = describe_value(said[0]) if said else f"a message with {listed(message)}"
        raise RecordProblem(place, f"{name}.content must be a string with content (got {got})")
    return one, is_learned and role == "assistant"


def _is_plain(message: Any) -> bool:
    """Whether a message is a known role and a text and nothing else."""
    if type(message) is not dict or len(message) != _PLAIN:
        return False
    role, content = message.get("role"), message.get("content")
    return type(content) is str and role in ROLES and bool(content.strip() or role in _MAY_BE_EMPTY)


def _of_sharegpt(message: dict[str, Any], name: str, place: Place) -> dict[str, Any]:
    """A message with `from` and `value` in OpenAI's form; either may have the name that it has there."""
    if len(message.keys() & {"from", "role"}) > 1 or len(message.keys() & {"value", "content"}) > 1:
        raise RecordProblem(place, f"{name} mixes `from` and `value` with `role` and `content`; try one pair")
    key = "from" if "from" in message else "role"
    speaker = message.pop(key, None)
    value = message.pop("value", message.pop("content", None))
    role = _SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        hint = did_you_mean([str(speaker)], _SHAREGPT_ROLES, there=True)
        raise RecordProblem(
            place,
            f"{name}.{key} must be one of {', '.join(_SHAREGPT_ROLES)} (got {describe_value(speaker)}){hint}",
        )
    if speaker != "function_call":
        return message | {"role": role, "content": value}
    try:
        call = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        call = None
    if call is None:
        raise RecordProblem(
            place,
            f"{name}.value must be a call as JSON, with name and arguments (got {describe_value(value)})",
        )
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
    if len(message) > _PLAIN and (unknown := sorted(filter(_MAYBE_LEARNED.search, message))):
        raise RecordProblem(
            place,
            f"{name}.{unknown[0]}: nobody knows whether this says what is learned; try `weight` 0 or 1, or another name for the"
            " key",
        )
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
    if "arguments" not in function and "parameters" in function:
        raise RecordProblem(
            place, f"{name}.function: a call has `arguments`, and only a tool has `parameters`"
        )
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        # OpenAI writes the object as a string; templates would put that string into quotes once more.
        with suppress(ValueError):
            arguments = json.loads(arguments or "null")
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        raise RecordProblem(
            place,
            f"{name}.function.arguments must be an object, or one written as a string"
            f" (got {describe_value(function.get('arguments'))})",
        )
    return {**call, "function": {**function, "arguments": arguments}}
