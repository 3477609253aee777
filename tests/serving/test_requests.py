# SPDX-License-Identifier: Apache-2.0
"""OpenAI's requests: defaults, and every problem at once."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuneyard_server.errors import InvalidRequestError
from tuneyard_server.requests import parse_request

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_the_defaults_are_those_of_openai() -> None:
    request = parse_request({"model": "m", "prompt": "x"}, is_chat=False)
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed) == (16, 1.0, 1.0, None)
    assert parse_request(CHAT, is_chat=True).sampling.max_tokens is None


def test_what_asks_for_nothing_is_accepted() -> None:
    neutral = {
        "n": 1,
        "logprobs": None,
        "presence_penalty": 0,
        "user": "someone",
        "response_format": {"type": "text"},
    }
    assert parse_request(CHAT | neutral, is_chat=True).messages[0]["content"] == "hi"


def test_text_parts_of_a_message_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = parse_request(CHAT | {"messages": [{"role": "user", "content": parts}]}, is_chat=True)
    assert request.messages[0]["content"] == "ab"


PROBLEMS: list[tuple[str, bool, Any, list[str]]] = [
    ("no object", False, [], ["body"]),
    ("nothing", False, {}, ["prompt"]),
    (
        "several",
        False,
        {"model": 3, "prompt": 3, "temperature": 3, "n": 2},
        ["n", "model", "temperature", "prompt"],
    ),
    ("a typo", False, {"model": "m", "prompt": "x", "max_token": 3}, ["max_token"]),
    ("token ids", False, {"model": "m", "prompt": [1, 2]}, ["prompt"]),
    ("half a character", False, {"model": "m", "prompt": "\ud800", "stop": "\ud800"}, ["prompt", "stop"]),
    ("too many prompts", False, {"model": "m", "prompt": ["x"] * 65}, ["prompt"]),
    ("an empty stop", False, {"model": "m", "prompt": "x", "stop": [""]}, ["stop"]),
    (
        "true is no number",
        False,
        {"model": "m", "prompt": "x", "max_tokens": True, "top_p": True},
        ["max_tokens", "top_p"],
    ),
    ("a flag as text", False, {"model": "m", "prompt": "x", "stream": "yes"}, ["stream"]),
    ("no messages", True, {"model": "m", "messages": []}, ["messages"]),
    ("a prompt in a chat", True, CHAT | {"prompt": "x"}, ["prompt"]),
    ("tools", True, CHAT | {"tools": [{"type": "function"}]}, ["tools"]),
    (
        "a picture",
        True,
        CHAT | {"messages": [{"role": "user", "content": [{"image_url": "x"}]}]},
        ["messages[0].content"],
    ),
    ("a role", True, CHAT | {"messages": [{"role": "boss", "content": "x"}]}, ["messages[0].role"]),
]


@pytest.mark.parametrize(
    ("is_chat", "body", "parameters"), [p[1:] for p in PROBLEMS], ids=[p[0] for p in PROBLEMS]
)
def test_every_problem_is_named(is_chat: bool, body: Any, parameters: list[str]) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        parse_request(body, is_chat=is_chat)
    assert sorted(parameter for parameter, _ in refusal.value.problems) == sorted(parameters)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(
    ["model", "prompt", "messages", "stop", "n", "stream", "stream_options", "temperature", "seed", "tools"]
)


@given(body=st.dictionaries(fields, json_values), is_chat=st.booleans())
def test_any_json_is_read_or_refused_but_never_an_accident(body: dict[str, Any], is_chat: bool) -> None:
    try:
        request = parse_request(body, is_chat=is_chat)
    except InvalidRequestError as refusal:
        assert refusal.problems  # noqa: PT017  either outcome is right
    else:
        assert request.model == (body.get("model") or "")  # as with vLLM, a request may name no model
