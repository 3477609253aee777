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
_ROLES_BY_NAME = {
    **{name: name for name in ROLES},
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "model", "bot", "chatbot", "ai"), "assistant"),
    **dict.fromkeys(("observation", "function_response", "tool_response", "ipython"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "assistant"),
}
"""Roles by the names that data sets have for them, in small letters: ShareGPT, Gemini, Cohere, OpenAssistant, Llama, ms-swift."""
_CALLS = ("function_call", "tool_call")
"""Names of a turn that calls a tool and says nothing."""
_LEARNED_KEYS = ("weight", "train", "training", "trainable", "loss")
"""Keys of a message that say whether it is learned: OpenAI and Mistral write `weight`, others the rest."""
_MAYBE_LEARNED = re.compile(r"(^|_)(train\w*|learn\w*|loss|mask\w*|weights?|ignore\w*)($|_)")
"""Other keys that may say so; what they mean is not known."""
_PARTLY_LEARNED_KEYS = ("train_detail", "training_detail")
"""Keys of a message that say which of its characters are learned, as Axolotl has them."""
_NAMES_OF_ROLE = ("author", "speaker", "user", "name", "type")
_NAMES_OF_CONTENT = ("text", "message", "parts", "utterance", "body", "refusal")
"""What other programs call the text of a message; OpenAI puts what it refuses to answer into `refusal`."""
_TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of the parts that are text: OpenAI has one in its chats and others in its responses."""
_OTHER_PARTS = {
    "tool_use": "this is Anthropic's form of a call; try `tool_calls` of the message, as OpenAI has them",
    "tool_result": "this is Anthropic's form of what a tool answers; try a message of its own with role `tool`",
    "thinking": "try `reasoning_content` of the message for what is thought",
    "refusal": "try its text as the content",
}
"""What to try for parts that are no text."""
_KEYS = {"from": "role", "value": "content"}
"""Keys of ShareGPT and what they are elsewhere."""
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
    there = {key: value for key, value in message.items() if value is not None}
    _check_keys(there, name, place)
    said = there.get("from", there.get("role"))
    role = role_of(said)
    if role is None:
        raise RecordProblem(place, _no_role(said, f"{name}.{'from' if 'from' in there else 'role'}", message))
    # In the order of the record, which templates may write.
    one = {_KEYS.get(key, key): value for key, value in there.items()} | {"role": role}
    if str(said).strip().lower() in _CALLS:
        one["tool_calls"] = _calls_of_turn(
            one.pop("content", None), f"{name}.{_key_of_content(message)}", place
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
    content = text_of_content(one.get("content"), f"{name}.content", place)
    if calls:
        # As a serving program has it: many templates fail on null and on no content at all, none on an empty text.
        one["content"] = content or ""
    elif content is not None and (content.strip() or role in _MAY_BE_EMPTY):
        one["content"] = content
    else:
        raise RecordProblem(place, f"{name}.content must be a string with content ({_no_content(message)}")
    return one, is_learned and role == "assistant"


def _is_plain(message: Any) -> bool:
    """Whether a message is a known role and a text and nothing else."""
    if type(message) is not dict or len(message) != _PLAIN:
        return False
    role, content = message.get("role"), message.get("content")
    return type(content) is str and role in ROLES and bool(content.strip() or role in _MAY_BE_EMPTY)


def role_of(name: Any) -> str | None:
    """The role that a name stands for in any capitals; None if there is none."""
    return _ROLES_BY_NAME.get(name.strip().lower()) if isinstance(name, str) else None


def _check_keys(message: dict[str, Any], name: str, place: Place) -> None:
    """Either of `role` and `content` may have the name that it has in ShareGPT, but not both names."""
    if len(message.keys() & {"from", "role"}) > 1 or len(message.keys() & {"value", "content"}) > 1:
        raise RecordProblem(place, f"{name} mixes `from` and `value` with `role` and `content`; try one pair")


def _no_role(said: Any, name: str, message: Mapping[str, Any]) -> str:
    if said == "function":
        return f"{name}: `function` is the former name of `tool`; try role `tool`"
    got = f"{name} must be one of {', '.join(ROLES)}, or a name that other programs have for one, such as human and gpt (got {describe_value(said)})"
    if said is None:
        other = next((key for key in _NAMES_OF_ROLE if key in message), None)
        return f"{got}; try the name `role` for `{other}`" if other else got
    return got + did_you_mean([str(said)], _ROLES_BY_NAME, there=True)


def _no_content(message: Mapping[str, Any]) -> str:
    """What a message without content has, and what to try."""
    said = [message[key] for key in ("content", "value") if key in message]
    got = f"got {describe_value(said[0]) if said else f'a message with {listed(message)}'})"
    other = next((key for key in _NAMES_OF_CONTENT if message.get(key) and not any(said)), None)
    return f"{got}; try the name `content` for `{other}`" if other else got


def _key_of_content(message: Mapping[str, Any]) -> str:
    return "value" if "value" in message else "content"


def _calls_of_turn(content: Any, name: str, place: Place) -> list[dict[str, Any]]:
    """The calls of a turn that is nothing else: JSON with name and arguments."""
    call = content
    if isinstance(content, str):
        with suppress(ValueError):
            call = json.loads(content)
    if not isinstance(call, dict | list):
        raise RecordProblem(
            place, f"{name} must be a call as JSON, with name and arguments (got {describe_value(content)})"
        )
    calls = call if isinstance(call, list) else [call]
    return [{"type": "function", "function": each} for each in calls]


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


def text_of_content(content: Any, name: str, place: Place) -> str | None:
    """The text of a content: a string, or parts that are text."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        hint = "; try its text alone" if isinstance(content, dict) and "text" in content else ""
        raise RecordProblem(
            place, f"{name} must be a string with content (got {describe_value(content)}){hint}"
        )
    texts = [_text_of_part(part) for part in content]
    if all(text is not None for text in texts):
        return "".join(map(str, texts))
    other = content[texts.index(None)]
    kind = other.get("type") if isinstance(other, dict) else None
    if isinstance(other, str):
        hint = 'try one string, or {"type": "text", "text": ...} for each'
    else:
        hint = _OTHER_PARTS.get(str(kind), "try to leave the record out")
    raise RecordProblem(
        place,
        f"{name}: only parts of type text can be learned from (got {describe_value(kind or other)}); {hint}",
    )


def _text_of_part(part: Any) -> str | None:
    """The text of a part; Amazon Bedrock's has no type."""
    if not isinstance(part, dict) or (part.get("type") not in _TEXT_PARTS and part.keys() != {"text"}):
        return None
    text = part.get("text")
    return text if isinstance(text, str) else None


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
