# SPDX-License-Identifier: Apache-2.0
"""Templates of jobs and of models: what is learned, what is refused, what can't be run."""

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from tuneyard_api.job_inputs import Template
from tuneyard_data.chat_template import ChatTemplate
from tuneyard_data.chats import read_chat
from tuneyard_data.records import Place, Record, RecordProblem
from tuneyard_data.refused import DataRefused
from tuneyard_data.templates import renderer_of

CHATML = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def record(**values):
    return Record(Place("t.jsonl", 3), values)


def learned(example):
    return [piece.text for piece in example.pieces if piece.is_learned]


def test_job_template_renders_other_columns():
    render = renderer_of(
        "auto", Template(prompt="{{ q }}\nAnswer:", completion=" {{ a | upper }}"), None, record(q="x")
    )
    example = render(record(q="why?", a="so"))
    assert example.prompt == "why?\nAnswer:"
    assert learned(example) == [" SO"]


TEMPLATE_PROBLEMS = {
    "an unknown column": (
        "{{ qestion }}",
        "'qestion' is undefined; the columns are `question`, `a`; did you mean `question`?",
    ),
    "nothing but white space": ("{{ '' }} ", "dataset.template.prompt renders to nothing but white space"),
    "an error in a filter": ("{{ question | int / 0 }}", "dataset.template.prompt: ZeroDivisionError"),
    "a way out of the sandbox": ("{{ question.__class__.__mro__ }}", "dataset.template.prompt: "),
    "a change of the record": ("{% set _ = a.append(1) %}x", "dataset.template.prompt: SecurityError"),
}


@pytest.mark.parametrize(("prompt", "message"), TEMPLATE_PROBLEMS.values(), ids=TEMPLATE_PROBLEMS.keys())
def test_template_problem_is_the_records(prompt, message):
    render = renderer_of("auto", Template(prompt=prompt, completion="c"), None, record(question="x", a=[]))
    with pytest.raises(RecordProblem) as caught:
        render(record(question="x", a=[]))
    assert message in str(caught.value)


def test_template_that_does_not_parse_is_refused_with_its_line():
    with pytest.raises(DataRefused, match=r"dataset.template.prompt: line 2: "):
        renderer_of("auto", Template(prompt="a\n{{ b", completion="c"), None, record(b="x"))


def chat(source=CHATML):
    empty = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>", chat_template=source
    )
    return ChatTemplate(empty, ("</s>",))


def text_of(template, messages, *, asks):
    return template.render(read_chat(record(messages=messages)), len(messages), asks=asks)


def test_every_assistant_turn_is_learned_up_to_its_end():
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "bye"},
        {"role": "assistant", "content": "ciao"},
    ]
    example = chat().example(record(messages=messages))
    assert learned(example) == ["hello</s>", "ciao</s>"]
    whole = text_of(chat(), messages, asks=False)
    assert "".join(piece.text for piece in example.pieces) == whole.removesuffix("\n")
    assert example.prompt == whole[: whole.rindex("ciao")]
    assert example.reference == "ciao"


def test_template_that_rewrites_earlier_turns_teaches_the_last_one():
    forgetful = CHATML.replace(
        "message.content", "(message.content if loop.last or message.role == 'user' else message.content[:1])"
    )
    messages = [{"role": role, "content": "abc"} for role in ("user", "assistant", "user", "assistant")]
    assert learned(chat(forgetful).example(record(messages=messages))) == ["abc</s>"]


def turns(*roles):
    return [{"role": role, "content": "x"} for role in roles]


CHAT_PROBLEMS = {
    "no messages": ([], "`messages` must be a list with content (got a list, [])"),
    "messages as text": ("hi", '`messages` must be a list with content (got a string, "hi")'),
    "a mistyped role": (
        turns("usr", "assistant"),
        "messages[0].role must be one of system, developer, user, assistant, tool",
    ),
    "the assistant begins": (turns("assistant"), "messages[0]: the assistant must answer user or tool"),
    "the user asks twice": (turns("user", "user", "assistant"), "messages[1]: two user messages in a row"),
    "system comes late": (
        turns("user", "system", "assistant"),
        "messages[1]: a system message must be the first",
    ),
    "nobody answers": (turns("user"), "the last message must be the assistant's"),
    "an empty answer": (
        [*turns("user"), {"role": "assistant", "content": ""}],
        "messages[1].content must be a string",
    ),
    "a message as text": (["hi"], "messages[0] must be an object with role and content"),
}


@pytest.mark.parametrize(("messages", "message"), CHAT_PROBLEMS.values(), ids=CHAT_PROBLEMS.keys())
def test_chat_problem_names_the_message(messages, message):
    with pytest.raises(RecordProblem) as caught:
        chat().example(record(messages=messages))
    assert str(caught.value).startswith(message)


def test_chat_without_chat_template_says_what_to_do():
    with pytest.raises(
        DataRefused, match=r"has no chat template; try an instruction-tuned model, or dataset.template"
    ):
        renderer_of("auto", None, None, record(messages=turns("user", "assistant")))


def test_chat_template_may_refuse_a_record_in_its_own_words():
    refusing = "{{ raise_exception('no system role here') }}"
    with pytest.raises(RecordProblem, match="no system role here"):
        chat(refusing).example(record(messages=turns("user", "assistant")))


def test_generation_marks_are_rendered_as_if_they_were_not_there():
    marked = CHATML.replace(
        "{{ message.content }}", "{% generation %}{{ message.content }}{% endgeneration %}"
    )
    messages = turns("user", "assistant")
    assert text_of(chat(marked), messages, asks=True) == text_of(chat(), messages, asks=True)
