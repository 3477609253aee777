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
    "a chat as Python writes it": (
        "[{'role': 'user', 'content': 'q'}]",
        "`messages` must be a list with content (got a string, \"[{'role': 'user', 'content': 'q'}]\"); this is Python's spelling",
    ),
    "a chat as a text": (
        "User: q",
        '`messages` must be a list with content (got a string, "User: q"); try a list of objects with role and content',
    ),
    "an empty list as a string": ("[]", "`messages` must be a list with content (got a list, [])"),
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
    "a role that nobody knows": (
        [{"role": "customer", "content": "q"}, ANSWER],
        "messages[0].role must be one of system, developer, user, assistant, tool, or a name that other programs have",
    ),
    "another name for the role": (
        [{"author": "narrator", "content": "q"}, ANSWER],
        (
            "messages[0].role must be one of system, developer, user, assistant, tool, or a name that other programs have for one,"
            " such as human and gpt (got null); try the name `role` for `author`"
        ),
    ),
    "another name for the content": (
        [{"role": "user", "text": "q"}, ANSWER],
        "messages[0].content must be a string with content (got a message with `role`, `text`); try the name `content` for `text`",
    ),
    "what OpenAI's model refused": (
        [ASK, {"role": "assistant", "content": None, "refusal": "no"}],
        "messages[1].content must be a string with content (got null); try the name `content` for `refusal`",
    ),
    "a call in Anthropic's form": (
        [ASK, {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]}],
        (
            'messages[1].content: only parts of type text can be learned from (got a string, "tool_use"); this is Anthropic\'s form of a'
            " call; try `tool_calls`"
        ),
    ),
    "the answer of a tool in Anthropic's form": (
        [{"role": "user", "content": [{"type": "tool_result", "content": "r"}]}, ANSWER],
        'messages[0].content: only parts of type text can be learned from (got a string, "tool_result"); this is Anthropic\'s form',
    ),
    "strings as parts": (
        [{"role": "user", "content": ["q"]}, ANSWER],
        'messages[0].content: only parts of type text can be learned from (got a string, "q"); try one string, or {"type"',
    ),
    "a part as the content": (
        [{"role": "user", "content": {"type": "text", "text": "q"}}, ANSWER],
        'messages[0].content must be a string with content (got an object, {"type": "text", "text": "q"}); try its text alone',
    ),
    "a tool of Amazon Bedrock": (
        [ASK, {"role": "assistant", "content": [{"toolUse": {"name": "f"}}]}],
        'messages[1].content: only parts of type text can be learned from (got an object, {"toolUse": {"name": "f"}})',
    ),
    "an answer before a question": (
        [ANSWER],
        "messages[0]: the assistant must answer user or tool (got one after nothing); try to leave it out",
    ),
    "two answers": (
        [ASK, ANSWER, ANSWER],
        "messages[2]: the assistant must answer user or tool (got one after assistant); try to join the two",
    ),
    "thanks at the end": (
        [ASK, ANSWER, ASK],
        "the last message must be the assistant's, because the model learns to write it (got user); try to leave out what",
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
        "messages[0].from must be one of system, developer, user",
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
