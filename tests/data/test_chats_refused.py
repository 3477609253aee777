# SPDX-License-Identifier: Apache-2.0
"""Chats that can't be learned as they stand are refused by the name of what is wrong."""

import pytest
from tuneyard_data.chats import read_chat
from tuneyard_data.records import Place, Record, RecordProblem

ASK, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def record(**values):
    return Record(Place("t.jsonl", 3), values)


def call(arguments):
    function = {"name": "weather", "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": function}]}


REFUSED = {
    "an image": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ANSWER],
        'messages[0].content: only parts of type text can be learned from (got a string, "image_url")',
    ),
    "a weight that is no number": ([ASK, ANSWER | {"weight": []}], "messages[1].weight must be 0 or 1"),
    "a part of a turn": (
        [ASK, ANSWER | {"train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]}],
        "messages[1].train_detail: a message is learned whole or not at all; try `weight` 0 or 1",
    ),
    "an empty question": (
        [ASK | {"content": ""}, ANSWER],
        "messages[0].content must be a string with content",
    ),
    "a chat as a string": (
        "[]",
        '`messages` must be a list with content (got a string, "[]"); try the list itself',
    ),
    "a weight between": ([ASK, ANSWER | {"weight": 0.5}], "messages[1].weight must be 0 or 1"),
    "a mark of another name": (
        [ASK, ANSWER | {"loss_mask": 0}],
        "messages[1].loss_mask: nobody knows whether this says what is learned; try `weight` 0 or 1",
    ),
    "two ways to call": (
        [ASK, call("{}") | {"function_call": {"name": "f", "arguments": "{}"}}],
        "messages[1] has both `tool_calls` and its former name `function_call`",
    ),
    "parameters in the place of arguments": (
        [ASK, ANSWER | {"tool_calls": [{"function": {"name": "f", "parameters": {"city": "X"}}}]}],
        "messages[1].tool_calls[0].function: a call has `arguments`, and only a tool has `parameters`",
    ),
    "a role of ShareGPT": (
        [{"role": "human", "content": "q"}, ANSWER],
        'messages[0].role must be one of system, developer, user, assistant, tool (got a string, "human"); did you mean `user`?',
    ),
    "from and role": (
        [ASK | {"from": "human"}, ANSWER],
        "messages[0] mixes `from` and `value` with `role` and `content`",
    ),
    "a call that is no JSON": (
        [ASK, {"from": "function_call", "value": "weather(city='X')"}],
        "messages[1].value must be a call as JSON, with name and arguments",
    ),
    "parts of another program": (
        [{"role": "user", "parts": [{"text": "q"}]}, ANSWER],
        "messages[0].content must be a string with content (got a message with `role`, `parts`)",
    ),
    "an unknown speaker": (
        [{"from": "narrator", "value": "x"}, ANSWER],
        "messages[0].from must be one of system, human",
    ),
    "the former role of tools": (
        [ASK, ANSWER, {"role": "function", "content": "x"}],
        "messages[2].role: `function` is the former name of `tool`",
    ),
    "a call without a name": (
        [ASK, ANSWER | {"tool_calls": [{}]}],
        "messages[1].tool_calls[0] must be an object",
    ),
    "arguments that are no object": (
        [ASK, call("7")],
        "messages[1].tool_calls[0].function.arguments must be",
    ),
    "neither words nor a call": (
        [ASK, {"role": "assistant", "content": None}],
        "messages[1].content must be",
    ),
    "a user who calls": (
        [ASK | {"tool_calls": [{"function": {"name": "f"}}]}, ANSWER],
        "messages[0].tool_calls: only",
    ),
}


@pytest.mark.parametrize(("messages", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_can_not_be_learned_is_refused_by_name(messages, message):
    with pytest.raises(RecordProblem) as caught:
        read_chat(record(messages=messages))
    assert str(caught.value).startswith(message)


def test_other_columns_are_refused_by_name():
    with pytest.raises(RecordProblem, match="`tools` must be a list of objects"):
        read_chat(record(messages=[ASK, ANSWER], tools="weather"))
    with pytest.raises(RecordProblem, match="it must not set tools"):
        read_chat(record(messages=[ASK, ANSWER], chat_template_kwargs={"tools": []}))
    with pytest.raises(RecordProblem, match="both `messages`, `conversations` hold a chat"):
        read_chat(record(messages=[ASK, ANSWER], conversations=[ASK, ANSWER]))
    with pytest.raises(RecordProblem, match="so `completion` must be one too"):
        read_chat(record(prompt=[ASK], completion="a"))
