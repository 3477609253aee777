# SPDX-License-Identifier: Apache-2.0
"""The chat template of a model: which parts of its text are learned.

The text is transformers' own (`apply_chat_template`), so that it equals what a serving program makes.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any, Protocol

import jinja2

from tuneyard_data.chats import REASONING_KEYS, Chat, read_chat, reference_of
from tuneyard_data.examples import Example, Piece
from tuneyard_data.pretrained import plain_rendering
from tuneyard_data.records import Record, RecordProblem
from tuneyard_data.refused import DataRefused

EARLIER_ANSWERS_LEFT_OUT = "answers that the model's chat template writes differently once others follow are not learned; the last one is"
ASKED_OTHERWISE = (
    "the model's chat template asks for an answer in words that it does not write before one: a model that learns from it"
    " may answer badly where it is asked so; try dataset.template"
)
REASONING_LEFT_OUT = "the model's chat template leaves the reasoning out of the text, so it is not learned"
TOOLS_LEFT_OUT = "the model's chat template leaves the tools out of the text"
ENDS_OTHERWISE = (
    "the model's chat template ends answers with no token that a serving program stops at; such a token is learned behind the"
    " last answer alone"
)
_REWRITTEN = "the model's chat template leaves out or rewrites {}; what it writes is learned"
_NOT_USED = "the model's chat template does not use {}"
_ANY_TEMPLATE = frozenset({"role", "content", "name", "id", "tool_call_id", *REASONING_KEYS})
"""Keys of messages of which nothing is said where a template does not use them: what they hold is looked for, or names a message."""
_NAMES, _KEYS = re.compile(r"\w+"), re.compile(r"[.'\"](\w+)")
"""What a template may mean a variable by, and a key of a message."""
_WORDS = re.compile(r"<[^<>\s]*>|\w+|.", re.DOTALL)
"""Marks in angle brackets, words and other characters: no token of a model's own ends inside of one."""


class AppliesChatTemplate(Protocol):
    """A tokenizer of transformers, as far as it is used here."""

    special_tokens_map: dict[str, str]

    chat_template: str | dict[str, str] | None
    """The template, or several by name."""

    def get_chat_template(self) -> str:
        """The template that is meant where none is named."""

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:
        """The text of a chat."""


class ChatTemplate:
    """The chat template of a tokenizer."""

    def __init__(self, tokenizer: AppliesChatTemplate, stops: tuple[str, ...]) -> None:
        """`stops` are the texts of the tokens that end an answer, one of which the template may write itself."""
        self._tokenizer, self._stops = tokenizer, stops
        self._quick: Callable[[dict[str, Any]], str] | None = None
        sources = tokenizer.chat_template or ""
        source = sources if isinstance(sources, str) else " ".join(sources.values())
        self._names = frozenset(_NAMES.findall(source))
        self._keys = frozenset(_KEYS.findall(source))

    def render(self, chat: Chat, count: int, *, asks: bool) -> str:
        """The text of the first `count` messages; with `asks`, up to where the assistant begins to answer."""
        messages = chat.messages[:count]
        if not (chat.tools or chat.documents or chat.options) and all(map(_is_plain, messages)):
            self._quick = self._quick or plain_rendering(self._tokenizer)
            return self._quick({"messages": messages, "add_generation_prompt": asks})
        text = self._tokenizer.apply_chat_template(
            messages,
            tools=chat.tools,
            documents=chat.documents,
            add_generation_prompt=asks,
            tokenize=False,
            **chat.options,
        )
        return str(text)

    def example(self, record: Record) -> Example:
        """A chat whose assistant turns are learned, but those that the record says are not.

        A turn that the template writes differently once others follow is not learned either.

        Raises:
            RecordProblem: what the template or this code says of the record.
            DataRefused: if the template can't be read.
        """
        chat = read_chat(record)
        last = len(chat.messages) - 1
        texts: dict[tuple[int, bool], str] = {}

        def render(count: int, *, asks: bool) -> str:
            if (count, asks) not in texts:
                texts[count, asks] = self.render(chat, count, asks=asks)
            return texts[count, asks]

        try:
            whole = render(last + 1, asks=False)
            turns = [turn for turn in range(last + 1) if chat.learned[turn] or turn == last]
            places = {turn: self._place(render, turn, whole) for turn in turns}
            prompt = render(last, asks=True)
        except jinja2.TemplateSyntaxError as error:
            raise DataRefused(f"the model's chat template, line {error.lineno}: {error.message}") from None
        except Exception as error:  # noqa: BLE001  a template can raise anything on a person's data
            said = (
                error.message
                if isinstance(error, jinja2.TemplateError)
                else f"{type(error).__name__}: {error}"
            )
            raise RecordProblem(record.place, f"the model's chat template: {said}") from None
        pieces, done = [], 0
        for turn, place in places.items():
            if place is None and turn != last:
                continue
            start, end = place or (done, done)
            if start < done or start == end:
                raise RecordProblem(
                    record.place,
                    "the model's chat template does not put the answer after its prompt; try dataset.template",
                )
            answer = whole[start:end]
            lost = [name for name in _names(chat.messages[turn].get("tool_calls")) if str(name) not in answer]
            if lost:
                raise RecordProblem(
                    record.place,
                    f"the model's chat template does not write the call of the tool `{lost[0]}`; try a model whose template"
                    " does, or dataset.template",
                )
            pieces += [Piece(whole[done:start], is_learned=False), Piece(answer, chat.learned[turn])]
            done = end
        notes = [EARLIER_ANSWERS_LEFT_OUT] * (None in places.values())
        notes += [ASKED_OTHERWISE] * (not whole.startswith(prompt))
        notes += [REASONING_LEFT_OUT] * any(part.strip() not in whole for part in chat.reasoning)
        notes += [TOOLS_LEFT_OUT] * any(str(name) not in whole for name in _names(chat.tools))
        notes += [ENDS_OTHERWISE] * (not pieces[-1].text.rstrip().endswith(self._stops))
        notes += self._left_out(chat, whole, [turn for turn, place in places.items() if place])
        return Example(
            tuple(pieces),
            prompt,
            reference_of(chat.messages),
            tuple(chat.messages[:last]),
            has_special_tokens=True,
            notes=tuple(notes),
        )

    def _left_out(self, chat: Chat, whole: str, answers: Sequence[int]) -> Iterator[str]:
        """What of a chat is not in its text, or otherwise: messages, keys of messages, and variables of the template."""
        rewritten, keys = set[str](), set[str]()
        for turn, message in enumerate(chat.messages):
            if len(message) > 2:  # noqa: PLR2004  role and content
                keys |= message.keys() - _ANY_TEMPLATE
            is_shown = message["role"] != "assistant" or turn in answers
            if is_shown and (content := message.get("content")) and content.strip() not in whole:
                rewritten.add(
                    "answers" if message["role"] == "assistant" else f"messages of {message['role']}"
                )
        yield from map(_REWRITTEN.format, sorted(rewritten))
        if not (keys or chat.options or chat.documents):
            return
        names = {*chat.options, *(["documents"] if chat.documents else [])}
        for unused in sorted((keys - self._keys) | (names - self._names)):
            if unused not in whole:
                yield _NOT_USED.format(f"`{unused}`")

    def _place(self, render: Callable[..., str], turn: int, whole: str) -> tuple[int, int] | None:
        """Where an answer begins and ends in the text of the whole chat; None if it is written differently there.

        It begins behind the words that ask for it, as far as the template writes them before an answer.
        """
        prompt, upto = render(turn, asks=True), render(turn + 1, asks=False)
        start = len(prompt)
        if not upto.startswith(prompt):
            before = render(turn, asks=False).rstrip()
            if not upto.startswith(before):
                return None
            start = max(_shared_length(prompt, upto), len(before))
        end = next((end for end in self._ends_of(upto, start) if whole.startswith(upto[:end])), start)
        return (start, end) if start < end else None

    def _ends_of(self, text: str, start: int) -> Iterator[int]:
        """Where an answer that begins at `start` may end: behind a token that ends answers, as nothing behind it is generated.

        Where a template writes several such tokens, each of them may be the end, the last one first: some are written
        only where no other message follows.
        """
        ends = [start + text[start:].rindex(stop) + len(stop) for stop in self._stops if stop in text[start:]]
        if not ends:
            yield len(text)
        end = max(ends, default=start)
        while end > start:
            yield end
            stop = next(stop for stop in self._stops if text.endswith(stop, start, end))
            shorter = text[start : end - len(stop)].rstrip()
            end = start + len(shorter) if shorter.endswith(self._stops) else start


def _is_plain(message: dict[str, Any]) -> bool:
    """Whether a message has a role and a text and nothing else."""
    return len(message) == 2 and type(message.get("role")) is str and type(message.get("content")) is str  # noqa: PLR2004  both


class PlainChat:
    """Chats without the chat template of a model: one line for each message, as far as it has a text."""

    def example(self, record: Record) -> Example:
        """A chat whose assistant turns are learned.

        Raises:
            RecordProblem: for what can't be a chat.
        """
        chat = read_chat(record)
        pieces = [
            Piece(f"{message['role']}: {message.get('content') or ''}\n", is_learned)
            for message, is_learned in zip(chat.messages, chat.learned, strict=True)
        ]
        return Example(tuple(pieces), None, reference_of(chat.messages), tuple(chat.messages[:-1]))


def _shared_length(one: str, other: str) -> int:
    """The number of characters of the words that two texts begin with alike."""
    pairs = zip(_WORDS.findall(one), _WORDS.findall(other), strict=False)
    return sum(len(word) for word, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _names(tools: list[Any] | None) -> list[Any]:
    functions = [tool.get("function", tool) for tool in tools or []]
    return [function["name"] for function in functions if isinstance(function, dict) and "name" in function]
