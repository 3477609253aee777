# SPDX-License-Identifier: Apache-2.0
"""Chats in the forms that people write them in: taken as they are meant, or refused by name; nothing is dropped."""

import inspect
import json

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from tuneyard_data.chat_template import (
    ASKED_OTHERWISE,
    EARLIER_ANSWERS_LEFT_OUT,
    ENDS_OTHERWISE,
    REASONING_LEFT_OUT,
    TOOLS_LEFT_OUT,
    ChatTemplate,
)
from tuneyard_data.chats import read_chat
from tuneyard_data.records import Place, Record, RecordProblem
from tuneyard_data.templates import renderer_of

PLAIN = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ '</s>' if m.role == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
WITH_TOOLS = (
    "{% if tools %}<tools>{% for t in tools %}{{ t.function.name }};{% endfor %}</tools>{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content or '' }}{% for c in m.tool_calls or [] %}"
    "<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}"
    "{{ '</s>' if m.role == 'assistant' else '\n' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
ASK, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def template(source=PLAIN, stops=("</s>",)):
    empty = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>", chat_template=source
    )
    return ChatTemplate(empty, stops)


def record(**values):
    return Record(Place("t.jsonl", 3), values)


def example_of(source=PLAIN, stops=("</s>",), **values):
    chosen = template(source, stops)
    return renderer_of("auto", None, chosen, record(**values))(record(**values))


def text(example):
    return "".join(piece.text for piece in example.pieces)


def learned(example):
    return [piece.text for piece in example.pieces if piece.is_learned]


def call(arguments):
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
        ],
    }


SAME_CHAT = {
    "messages": {"messages": [ASK, ANSWER]},
    "ShareGPT": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "conversations of messages": {"conversations": [ASK, ANSWER]},
    "prompt and completion as messages": {"prompt": [ASK], "completion": [ANSWER]},
    "parts of type text": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, ANSWER]
    },
    "keys that are null": {
        "messages": [ASK | {"name": None}, ANSWER | {"tool_calls": None, "refusal": None}]
    },
    "a weight of one": {"messages": [ASK, ANSWER | {"weight": 1}]},
    "ShareGPT by other names": {
        "conversations": [{"from": "human", "content": "q"}, {"role": "gpt", "value": "a"}]
    },
    "roles of ShareGPT in other capitals": {
        "conversations": [{"from": "Human", "value": "q"}, {"from": "GPT", "value": "a"}]
    },
    "roles of ShareGPT as roles": {
        "messages": [{"role": "human", "content": "q"}, {"role": "bot", "content": "a"}]
    },
    "roles of Cohere": {"messages": [{"role": "User", "content": "q"}, {"role": "Chatbot", "content": "a"}]},
    "roles of OpenAssistant": {
        "messages": [{"role": "prompter", "content": "q"}, {"role": "assistant", "content": "a"}]
    },
    "roles of Gemini": {"messages": [ASK, {"role": "model", "content": "a"}]},
    "messages as JSON": {"messages": json.dumps([ASK, ANSWER])},
    "conversations as JSON": {
        "conversations": ' [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]'
    },
    "a list of each key": {"messages": {"role": ["user", "assistant"], "content": ["q", "a"], "name": None}},
    "parts of Amazon Bedrock": {
        "messages": [
            {"role": "user", "content": [{"text": "q"}]},
            {"role": "assistant", "content": [{"text": "a"}]},
        ]
    },
    "parts of OpenAI's responses": {
        "messages": [
            {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
        ]
    },
    "a mask that says what is done anyway": {"mask": "User", "conversations": [ASK, ANSWER]},
    "another column that is null": {"messages": None, "conversations": [ASK, ANSWER], "prompt": None},
    "a column for a system message that is empty": {"conversations": [ASK, ANSWER], "system": ""},
}


@pytest.mark.parametrize("values", SAME_CHAT.values(), ids=SAME_CHAT.keys())
def test_each_form_is_the_same_chat(values):
    example = example_of(**values)
    assert (text(example), learned(example)) == ("user: q\nassistant: a</s>", [" a</s>"])


@pytest.mark.parametrize(
    "arguments", [{"city": "X"}, '{"city": "X"}'], ids=["an object", "a string, as OpenAI writes it"]
)
def test_calls_and_tools_reach_the_template(arguments):
    messages = [ASK, call(arguments), {"role": "tool", "tool_call_id": "1", "content": "sunny"}, ANSWER]
    example = example_of(WITH_TOOLS, messages=messages, tools=[TOOL])
    assert text(example).startswith("<tools>weather;</tools>user: q\n")
    assert learned(example) == [' <call>weather {"city": "X"}</call></s>', " a</s>"]
    assert example.notes == ()


def test_tools_may_be_a_string_and_a_function_call_a_turn_of_its_own():
    turns = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "X"}}'},
        {"from": "observation", "value": "sunny"},
        {"from": "gpt", "value": "a"},
    ]
    example = example_of(WITH_TOOLS, conversations=turns, tools=json.dumps([TOOL]))
    assert learned(example) == [' <call>weather {"city": "X"}</call></s>', " a</s>"]


def test_turns_of_ms_swift_call_tools_by_their_role():
    turns = [
        ASK,
        {"role": "tool_call", "content": '{"name": "weather", "arguments": {"city": "X"}}'},
        {"role": "tool_response", "content": "sunny"},
        ANSWER,
    ]
    example = example_of(WITH_TOOLS, messages=turns, tools=[TOOL])
    assert learned(example) == [' <call>weather {"city": "X"}</call></s>', " a</s>"]


def test_templates_see_the_keys_of_a_message_in_the_order_of_the_record():
    """`tojson` writes them in that order, as it does in a serving program."""
    source = "{% for m in messages %}{{ m | tojson }}</s>{% endfor %}"
    messages = [{"content": "q", "role": "user"}, {"content": "a", "weight": 1, "role": "assistant"}]
    assert text(example_of(source, messages=messages)) == (
        '{"content": "q", "role": "user"}</s>{"content": "a", "role": "assistant"}</s>'
    )


def test_tools_that_the_template_leaves_out_are_said():
    assert example_of(messages=[ASK, ANSWER], tools=[TOOL]).notes == (TOOLS_LEFT_OUT,)


@pytest.mark.parametrize("arguments", [None, "", "null", {}])
def test_a_call_may_have_no_arguments(arguments):
    assert learned(example_of(WITH_TOOLS, messages=[ASK, call(arguments)], tools=[TOOL])) == [
        " <call>weather {}</call></s>"
    ]


NOT_IN_THE_TEXT = {
    "a role that the template does not write": (
        {"messages": [{"role": "system", "content": "Be kind."}, ASK, ANSWER]},
        "leaves out or rewrites messages of system",
    ),
    "a part of the answer": (
        {"messages": [ASK, {"role": "assistant", "content": "<think>because</think>a"}]},
        "leaves out or rewrites answers",
    ),
    "a key of a message": ({"messages": [ASK, ANSWER | {"prefix": True}]}, "does not use `prefix`"),
    "thoughts in a form of their own": (
        {"messages": [ASK, ANSWER | {"reasoning": {"text": "because"}}]},
        REASONING_LEFT_OUT,
    ),
    "a key with the name of a variable": (
        {"messages": [ASK, ANSWER | {"tools": [TOOL]}]},
        "does not use `tools`",
    ),
    "documents": ({"messages": [ASK, ANSWER], "documents": [{"text": "x"}]}, "does not use `documents`"),
    "an option": (
        {"messages": [ASK, ANSWER], "chat_template_kwargs": {"enable_thinking": False}},
        "does not use `enable_thinking`",
    ),
}


@pytest.mark.parametrize(("values", "note"), NOT_IN_THE_TEXT.values(), ids=NOT_IN_THE_TEXT.keys())
def test_what_a_template_leaves_out_is_said(values, note):
    source = (
        "{{ tools or '' }}{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content.split('</think>')[-1] }}"
        "{{ '</s>' if m.role == 'assistant' else '\n' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    [said] = example_of(source, **values).notes
    assert note in said


def test_a_template_that_writes_whole_messages_leaves_nothing_out():
    source = "{% for m in messages %}{{ m | tojson }}</s>{% endfor %}"
    assert example_of(source, messages=[ASK, ANSWER | {"prefix": True}]).notes == ()


def test_an_answer_that_ends_where_no_server_stops_is_said():
    source = PLAIN.replace("'</s>'", "'<end>\n'")
    assert example_of(source, messages=[ASK, ANSWER]).notes == (ENDS_OTHERWISE,)


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}, {"trainable": 0}, {"loss": False}])
def test_a_turn_that_is_not_to_be_learned_is_seen_and_not_learned(mark):
    wrong = {"role": "assistant", "content": "WRONG"} | mark
    example = example_of(messages=[ASK, wrong, ASK, ANSWER])
    assert "WRONG" in text(example)
    assert learned(example) == [" a</s>"]


def test_only_the_completion_of_a_prompt_in_messages_is_learned():
    earlier = {"role": "assistant", "content": "earlier"}
    assert learned(example_of(prompt=[ASK, earlier, ASK], completion=[ANSWER])) == [" a</s>"]


@pytest.mark.parametrize("column", ["system", "system_prompt"])
def test_a_system_message_may_stand_in_a_column_of_its_own(column):
    example = example_of(
        conversations=[{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], **{column: "Be kind."}
    )
    assert text(example) == "system: Be kind.\nuser: q\nassistant: a</s>"
    with pytest.raises(RecordProblem, match="both in a column of its own and among the messages"):
        read_chat(record(messages=[{"role": "system", "content": "x"}, ASK, ANSWER], **{column: "Be kind."}))
    with pytest.raises(RecordProblem, match=f"`{column}` must be a string"):
        read_chat(record(messages=[ASK, ANSWER], **{column: 7}))
    parts = [{"type": "text", "text": "Be "}, {"text": "kind."}]
    chat = read_chat(record(messages=[ASK, ANSWER], **{column: parts}))
    assert chat.messages[0] == {"role": "system", "content": "Be kind."}


def test_two_columns_may_not_hold_other_system_messages():
    with pytest.raises(
        RecordProblem, match="`system`, `system_prompt` hold a system message each; try one column"
    ):
        read_chat(record(messages=[ASK, ANSWER], system="Be kind.", system_prompt="Be rude."))
    same = read_chat(record(messages=[ASK, ANSWER], system="Be kind.", system_message="Be kind."))
    assert len(same.messages) == 3


def test_a_system_message_may_be_empty():
    example = example_of(messages=[{"role": "system", "content": ""}, ASK, ANSWER])
    assert text(example) == "system: \nuser: q\nassistant: a</s>"


def test_options_may_be_json_and_are_no_arguments_of_the_library():
    assert read_chat(record(messages=[ASK, ANSWER], chat_template_kwargs='{"mood": "bad"}')).options == {
        "mood": "bad"
    }
    for argument in ("continue_final_message", "return_dict", "truncation", "self"):
        with pytest.raises(RecordProblem, match=f"it must not set {argument}"):
            read_chat(record(messages=[ASK, ANSWER], chat_template_kwargs={argument: True}))


def test_every_argument_of_apply_chat_template_is_known():
    taken = set(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters) - {"kwargs"}
    for argument in taken:
        with pytest.raises(RecordProblem, match="must not set"):
            read_chat(record(messages=[ASK, ANSWER], chat_template_kwargs={argument: None}))


def test_options_of_the_record_are_variables_of_the_template():
    source = "{{ 'thinking ' if enable_thinking }}" + PLAIN
    example = example_of(source, messages=[ASK, ANSWER], chat_template_kwargs={"enable_thinking": True})
    assert text(example).startswith("thinking user")


def test_reasoning_that_the_template_leaves_out_is_said():
    thought = ANSWER | {"reasoning_content": "because"}
    assert example_of(messages=[ASK, thought]).notes == (REASONING_LEFT_OUT,)
    shows = PLAIN.replace("{{ m.content }}", "{{ m.reasoning_content or '' }}{{ m.content }}")
    assert example_of(shows, messages=[ASK, thought]).notes == ()


def test_a_template_that_keeps_the_last_turn_alone_says_so():
    forgetful = PLAIN.replace("m.content", "(m.content if loop.last or m.role == 'user' else 'x')")
    example = example_of(forgetful, messages=[ASK, ANSWER, ASK, ANSWER])
    assert (learned(example), example.notes) == ([" a</s>"], (EARLIER_ANSWERS_LEFT_OUT,))


def test_each_turn_that_the_template_keeps_is_learned():
    thinks = (
        "{% set ns = namespace(asked=0) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set ns.asked = loop.index0 %}{% endif %}{% endfor %}"
    ) + WITH_TOOLS.replace("{{ m.content or", "{{ '<t></t>' if loop.index0 > ns.asked }}{{ m.content or")
    result = {"role": "tool", "tool_call_id": "1", "content": "sunny"}
    messages = [ASK, {"role": "assistant", "content": "early"}, ASK, call({"city": "X"}), result, ANSWER]
    example = example_of(thinks, messages=messages, tools=[TOOL])
    assert learned(example) == [' <t></t><call>weather {"city": "X"}</call></s>', " <t></t>a</s>"]
    assert example.notes == (EARLIER_ANSWERS_LEFT_OUT,)


def test_an_end_that_is_written_only_behind_the_last_turn_keeps_no_turn_from_being_learned():
    source = PLAIN.replace("'</s>'", "'<end>\n'") + "{{ '' if add_generation_prompt else '</s>' }}"
    example = example_of(source, ("</s>", "<end>"), messages=[ASK, ANSWER, ASK, ANSWER])
    assert (learned(example), example.notes) == ([" a<end>", " a<end>\n</s>"], ())


def test_a_template_that_asks_in_other_words_than_it_writes_says_so():
    source = PLAIN.replace("{{ m.role }}: ", "{{ m.role | upper }}: ")
    example = example_of(source, messages=[ASK, ANSWER])
    assert text(example) == "USER: q\nASSISTANT: a</s>"
    assert (learned(example), example.notes) == (["ASSISTANT: a</s>"], (ASKED_OTHERWISE,))


ASKED = "{% if add_generation_prompt %}assistant:{% endif %}"
OTHER_WORDS = {
    "thoughts begin when it asks": (
        PLAIN.replace(ASKED, ASKED.replace("assistant:", "assistant: <think>\n")),
        ["a</s>", "a</s>"],
    ),
    "thoughts are empty in the record": (
        PLAIN.replace(
            "{{ m.content }}", "{{ '<think></think>' if m.role == 'assistant' }}{{ m.content }}"
        ).replace(ASKED, ASKED.replace("assistant:", "assistant: <think>\n")),
        ["</think>a</s>", "</think>a</s>"],
    ),
    "a mark of its own begins the answer": (
        PLAIN.replace("{{ m.content }}", "{{ '<thus>' if m.role == 'assistant' }}{{ m.content }}").replace(
            ASKED, ASKED.replace("assistant:", "assistant: <think>\n")
        ),
        ["<thus>a</s>", "<thus>a</s>"],
    ),
    "a line break at the end of the template": (PLAIN + "{{ '\n' }}", [" a</s>", " a</s>"]),
}


@pytest.mark.parametrize(("source", "answers"), OTHER_WORDS.values(), ids=OTHER_WORDS.keys())
def test_words_that_ask_for_an_answer_are_not_learned(source, answers):
    example = example_of(source, messages=[ASK, ANSWER, ASK, ANSWER])
    assert (learned(example), ASKED_OTHERWISE in example.notes) == (answers, True)


@pytest.mark.parametrize("content", [{"content": None}, {"content": ""}, {}], ids=["null", "empty", "absent"])
def test_a_call_has_an_empty_text_for_templates_that_join_it(content):
    joins = WITH_TOOLS.replace("{{ m.content or '' }}", "{{ '' + m.content }}")
    asks = {key: value for key, value in call({"city": "X"}).items() if key != "content"} | content
    example = example_of(joins, messages=[ASK, asks], tools=[TOOL])
    assert learned(example) == [' <call>weather {"city": "X"}</call></s>']


def test_a_call_that_the_template_does_not_write_is_refused():
    with pytest.raises(RecordProblem, match="does not write the call of the tool `weather`; try a model"):
        example_of(messages=[ASK, call({"city": "X"})], tools=[TOOL])


def test_an_answer_ends_with_the_token_that_the_template_writes():
    source = PLAIN.replace("'</s>'", "'<end>\n'")
    assert learned(example_of(source, ("</s>", "<end>"), messages=[ASK, ANSWER])) == [" a<end>"]


def test_what_is_absent_is_none_for_the_template():
    source = (
        "{% if tools is not none %}TOOLS{% endif %}{% if documents is not none %}DOCUMENTS{% endif %}" + PLAIN
    )
    assert text(example_of(source, messages=[ASK, ANSWER])) == "user: q\nassistant: a</s>"


def test_json_in_a_template_takes_the_arguments_that_transformers_takes():
    source = "{% for m in messages %}{{ m | tojson(ensure_ascii=False, sort_keys=True) }}</s>{% endfor %}"
    example = example_of(source, messages=[ASK | {"content": "é"}, ANSWER])
    assert text(example) == '{"content": "é", "role": "user"}</s>{"content": "a", "role": "assistant"}</s>'


def test_a_template_may_ask_for_the_date_as_transformers_lets_it():
    source = "{{ strftime_now('%Y') | length }} {% for m in messages %}{{ m.content }}</s>{% endfor %}"
    assert text(example_of(source, messages=[ASK, ANSWER])) == "4 q</s>a</s>"


@pytest.mark.parametrize(
    "source",
    ["{{ messages[0].content + none }}", "{{ messages | frobnicate }}", "{{ raise_exception('no') }}"],
)
def test_whatever_a_template_raises_is_a_problem_of_the_record(source):
    with pytest.raises((RecordProblem, ValueError)) as caught:
        template(source).example(record(messages=[ASK, ANSWER]))
    assert "the model's chat template" in str(caught.value)
