# SPDX-License-Identifier: Apache-2.0
"""Every chat template that public packages ship, on the same chats as transformers: text, token ids and what is learned.

A template is rendered by transformers itself and by the data reader. Where a template marks what the assistant writes
(`generation` blocks), transformers' own mask is held against what is learned.
"""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise, takewhile
from pathlib import Path
from typing import Any

import pytest
from support.chat_templates import chat_templates_of, locked_archives
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from transformers import AutoTokenizer
from tuneyard_data.chat_template import ASKED_OTHERWISE, EARLIER_ANSWERS_LEFT_OUT
from tuneyard_data.examples import Example
from tuneyard_data.records import Place, Record, RecordProblem
from tuneyard_data.refused import DataRefused
from tuneyard_data.templates import renderer_of
from tuneyard_data.tokenization import TextTokenizer

TINY_LLAMA = Path(__file__).parents[2] / "examples/models/tiny-llama"
MARK = re.compile(r"<[|\uff5c]?[A-Za-z][\w\u2581.-]*[|\uff5c]?>|</\w+>|\[/?[A-Z_]+\]")
"""What looks like a special token in a template's source."""
ENDS = ("<|call|>", "<|eot_id|>", "<|eom_id|>", "<|return|>", "<|im_end|>", "<turn|>", "<|tool_response>")
"""Tokens that end an answer beside the one that the template writes behind a plain one."""
SPLITS = {
    "as GPT-2": None,
    "as Llama 3": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
"""How a text is split before tokens: whether line breaks at a seam stay together differs."""


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "A city."}},
            "required": ["city"],
        },
    },
}
CALL = {"name": "weather", "arguments": {"city": "Köln"}}
CALLS = [
    user("Rain?"),
    assistant("", tool_calls=[{"id": "call00001", "type": "function", "function": CALL}]),
    {"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": '{"sky": "grey"}'},
    assistant("Grey."),
]
CHATS: dict[str, tuple[list[dict[str, Any]], list[Any] | None]] = {
    "one turn": ([user("What is 2 + 2?"), assistant("It is 4.")], None),
    "system": ([SYSTEM, user("q one"), assistant("a one"), user("q two"), assistant("a two, é€日")], None),
    "turns": (
        [user("q 1"), assistant("a\n\n- b"), user("q 2"), assistant("a 2"), user("q 3"), assistant("a  3")],
        None,
    ),
    "spaces": ([user("  q \n"), assistant(" a\n")], None),
    "tools": (CALLS, [TOOL]),
    "system and tools": ([SYSTEM, *CALLS, user("Thanks"), assistant("Sure")], [TOOL]),
    "reasoning": ([user("q"), assistant("a", reasoning_content="because")], None),
}


@dataclass(frozen=True)
class Model:
    """A folder with a template, as both read it."""

    ours: TextTokenizer
    theirs: Any

    def render(self, messages: list[dict[str, Any]], tools: list[Any] | None, **options: Any) -> Any:
        more = {"tools": tools} if tools else {}
        return self.theirs.apply_chat_template(
            messages, **more, **{"tokenize": False, "return_dict": False} | options
        )


def read_model(folder: Path, source: str, split: str | None) -> Model:
    """The tiny Llama with a template, whose marks are special tokens."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tokenizer = Tokenizer.from_file(str(TINY_LLAMA / "tokenizer.json"))
    if split:
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(split), "isolated"), bytes_]
        )
    marks = sorted(set(MARK.findall(source)))
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    tokenizer.save(str(folder / "tokenizer.json"))
    shutil.copy(TINY_LLAMA / "config.json", folder)
    config = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(source)
    theirs = AutoTokenizer.from_pretrained(str(folder))
    ends = [*_end_of_answer(Model(None, theirs)), *ENDS]  # type: ignore[arg-type]
    ids = [tokenizer.token_to_id(end) for end in ("</s>", *ends) if end in (*marks, "</s>")]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    return Model(TextTokenizer(folder), theirs)


def _end_of_answer(model: Model) -> list[str]:
    try:
        text = model.render([user("What?"), assistant("XANSWERX")], None)
    except Exception:  # noqa: BLE001  a template may refuse any chat
        return []
    marks = MARK.findall(text.rpartition("XANSWERX")[2])
    return [mark for index, mark in enumerate(marks) if index == 0 or "end_of" in mark.lower()]


@dataclass(frozen=True)
class Comparison:
    """One chat through one template; `name` says which."""

    model: Model
    messages: list[dict[str, Any]]
    tools: list[Any] | None
    prompts: int
    """How many messages are the prompt's alone; none of them is learned."""

    @cached_property
    def whole(self) -> str | None:
        """The text by transformers; None if the template raises."""
        return self._text(len(self.messages), asks=False)

    def _text(self, count: int, *, asks: bool) -> str | None:
        try:
            text: str = self.model.render(self.messages[:count], self.tools, add_generation_prompt=asks)
        except Exception:  # noqa: BLE001  a template may refuse any chat
            return None
        return text

    def _example(self) -> Example | str:
        """What the data reader makes of it, or why it refuses."""
        values: dict[str, Any] = {"tools": self.tools} if self.tools else {}
        if self.prompts:
            values |= {
                "prompt": self.messages[: self.prompts],
                "completion": self.messages[self.prompts :],
            }
        else:
            values |= {"messages": self.messages}
        record = Record(Place("t.jsonl", 1), values)
        try:
            return renderer_of("auto", None, self.model.ours.chat_template(), record)(record)
        except (RecordProblem, DataRefused) as problem:
            return str(problem)

    def differences(self) -> Iterator[str]:
        example = self._example()
        if isinstance(example, str):
            if not self._may_refuse(example):
                yield f"refused: {example}"
        elif self.whole is None:
            yield "transformers refuses it"
        else:
            yield from self._text_differences(example, self.whole)
            yield from self._token_differences(example)

    def _may_refuse(self, problem: str) -> bool:
        """Whether the text by transformers can't be learned: there is none, it lacks a call, or rewrites what was before."""
        last = len(self.messages) - 1
        texts = [self._text(count, asks=asks) for count, asks in ((last, True), (last, False))]
        if self.whole is None or any(text is None for text in texts):
            return problem.startswith("the model's chat template")
        if "does not write the call" in problem:
            return CALL["arguments"]["city"] not in self.whole.replace("\\u00f6", "ö")  # type: ignore[index]
        begins = any(self.whole.startswith(text.rstrip()) for text in texts if text)
        is_asked_alone = self.whole.rstrip() == str(texts[0]).rstrip()
        return "put the answer after its prompt" in problem and (is_asked_alone or not begins)

    def _text_differences(self, example: Example, whole: str) -> Iterator[str]:
        stops = tuple(map(self.model.ours.decode_all, ([stop] for stop in self.model.ours.stop_ids)))
        if not whole.startswith(example.text):
            yield f"text {example.text!r}, transformers has {whole!r}"
        if example.text != whole and not example.text.endswith(stops):
            yield f"text ends before {whole[len(example.text) :]!r}"
        asked = self._text(len(self.messages) - 1, asks=True)
        before = "".join(piece.text for piece in example.pieces[:-1])
        if example.prompt != asked:
            yield f"asks {example.prompt!r}, transformers {asked!r}"
        if (before == asked) is (ASKED_OTHERWISE in example.notes):
            yield f"begins behind {before!r}, asked is {asked!r}"

    def _token_differences(self, example: Example) -> Iterator[str]:
        (record,) = self.model.ours.tokenize([example], learn_all=False, limit=100_000)
        ids, learned = record.tokens.tolist(), record.learned.tolist()
        text = self.model.theirs(example.text, add_special_tokens=False, return_offsets_mapping=True)
        expected, count = text.input_ids, len(text.input_ids)
        first = self.model.theirs(example.pieces[0].text, add_special_tokens=False).input_ids
        if ids[: len(first)] != first or any(learned[: len(first)]):
            yield "the tokens of the prompt are not those of the prompt alone"
        ends = list(accumulate((len(piece.text) for piece in example.pieces), initial=0))
        crosses = any(a < end < b for a, b in text.offset_mapping for end in ends)
        if crosses or expected[: len(first)] != first:
            # In the whole text a token belongs to two pieces. A server never makes such a one of a prompt.
            if self.model.ours.decode_all(ids).removesuffix("</s>") != example.text.removesuffix("</s>"):
                yield "the tokens are not those of the text"
            return
        rest = [] if expected[-1] in self.model.ours.stop_ids else [self.model.ours.end_id]
        if ids != expected + rest:
            yield f"tokens {ids}, transformers has {expected + rest}"
            return
        spans = [span for span, piece in zip(pairwise(ends), example.pieces, strict=True) if piece.is_learned]
        inside = [any(a <= x and y <= b for a, b in spans) for x, y in text.offset_mapping]
        if learned[:count] != inside or not all(learned[count:]):
            yield "learned are other tokens than those of the answers"
        if self.prompts:
            asked = self.model.render(
                self.messages[: self.prompts], self.tools, add_generation_prompt=True, tokenize=True
            )
            if ids[: len(asked)] == asked and learned != [False] * len(asked) + [True] * (
                len(ids) - len(asked)
            ):
                yield "learned is not what follows the prompt's tokens"
        elif re.search(r"\{%-?\s*generation\b", self.model.theirs.chat_template):
            yield from self._mask_differences(example, learned[:count], text.offset_mapping)

    def _mask_differences(
        self, example: Example, learned: list[bool], offsets: list[tuple[int, int]]
    ) -> Iterator[str]:
        """Held against what the template marks as the assistant's."""
        marked = self.model.render(
            self.messages,
            self.tools,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )["assistant_masks"][: len(learned)]
        both = list(zip(offsets, learned, marked, strict=True))
        prompts = list(self._prompts(example.text))
        # A mask may end within the tokens of one character, and before the token that ends the answer.
        assistants = {span for span, _, is_marked in both if is_marked}
        ends = {self.model.ours.decode_all([stop]) for stop in self.model.ours.stop_ids}
        more = [span for span, is_learned, _ in both if is_learned and span not in assistants]
        more = [(a, b) for a, b in more if example.text[a:b] not in ends]
        # Some templates write a header behind the words that ask for an answer, so that the model has to write it.
        more = [
            (a, b)
            for a, b in more
            if not any(end <= a and not any(end <= c < a for c, _ in assistants) for _, end in prompts)
        ]
        if more:
            yield f"learned and not the assistant's: {''.join(example.text[a:b] for a, b in more)!r}"
        less = [span for span, is_learned, is_marked in both if is_marked and not is_learned]
        less = [(a, b) for a, b in less if not any(start <= a and b <= end for start, end in prompts)]
        left = "".join(example.text[a:b] for a, b in less).strip()
        if left and EARLIER_ANSWERS_LEFT_OUT not in example.notes:
            yield f"the assistant's and not learned: {left!r}"

    def _prompts(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the text before each answer begins, and where the words that ask for the answer end."""
        start = 0
        for turn, message in enumerate(self.messages):
            asked = self._text(turn, asks=True) if message["role"] == "assistant" else None
            if asked is not None:
                alike = takewhile(lambda pair: pair[0] == pair[1], zip(asked, text, strict=False))
                yield start, sum(1 for _ in alike)
                start = len(self._text(turn + 1, asks=False) or "")


def comparisons(model: Model) -> Iterator[tuple[str, Comparison]]:
    for name, (messages, tools) in CHATS.items():
        yield name, Comparison(model, messages, tools, 0)
        yield f"{name}, as prompt and completion", Comparison(model, messages, tools, len(messages) - 1)


def check(templates: dict[str, str], split: str | None, folder: Path) -> None:
    found, rendered = [], 0
    for place, source in templates.items():
        model = read_model(folder / "model", source, split)
        for name, comparison in comparisons(model):
            found += [f"{place}: {name}: {difference}" for difference in comparison.differences()]
            rendered += comparison.whole is not None
    assert not found, "\n".join(found)
    assert rendered >= 5 * len(templates)


def test_a_sample_of_the_templates_is_what_transformers_makes_of_it(tmp_path):
    templates = chat_templates_of("trl")
    chosen = sorted(templates)[:: len(templates) // 5]
    check({place: templates[place] for place in chosen}, SPLITS["as Llama 3"], tmp_path)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
@pytest.mark.parametrize("package", locked_archives())
def test_every_template_of_a_package_is_what_transformers_makes_of_it(package, split, tmp_path):
    check(chat_templates_of(package), split, tmp_path)
