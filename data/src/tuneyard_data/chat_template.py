# SPDX-License-Identifier: Apache-2.0
"""The chat template of a model: which parts of its text are learned.

The text is transformers' own (`apply_chat_template`), so that it equals what a serving program makes.
"""

from typing import Any, Protocol

import jinja2

from tuneyard_data.chats import Chat, read_chat, reference_of
from tuneyard_data.examples import Example, Piece
from tuneyard_data.records import Record, RecordProblem
from tuneyard_data.refused import DataRefused

LAST_ANSWER_ONLY = "only the last answer is learned, as the model's chat template writes earlier ones differently once others follow"
ASKED_OTHERWISE = (
    "the model's chat template asks for an answer in words that it does not write before one: a model that learns from it"
    " may answer badly where it is asked so; try dataset.template"
)
REASONING_LEFT_OUT = "the model's chat template leaves the reasoning out of the text, so it is not learned"
TOOLS_LEFT_OUT = "the model's chat template leaves the tools out of the text"


class AppliesChatTemplate(Protocol):
    """A tokenizer of transformers, as far as it is used here."""

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:
        """The text of a chat."""


class ChatTemplate:
    """The chat template of a tokenizer."""

    def __init__(self, tokenizer: AppliesChatTemplate, stops: tuple[str, ...]) -> None:
        """`stops` are the texts of the tokens that end an answer, one of which the template may write itself."""
        self._tokenizer, self._stops = tokenizer, stops

    def render(self, chat: Chat, count: int, *, asks: bool) -> str:
        """The text of the first `count` messages; with `asks`, up to where the assistant begins to answer."""
        text = self._tokenizer.apply_chat_template(
            chat.messages[:count],
            tools=chat.tools,
            documents=chat.documents,
            add_generation_prompt=asks,
            tokenize=False,
            **chat.options,
        )
        return str(text)

    def example(self, record: Record) -> Example:
        """A chat whose assistant turns are learned, but those that the record says are not.

        Where the template writes earlier turns differently once others follow, only the last turn is.

        Raises:
            RecordProblem: what the template or this code says of the record.
            DataRefused: if the template can't be read.
        """
        chat = read_chat(record)
        last = len(chat.messages) - 1
        turns = [i for i, message in enumerate(chat.messages) if message["role"] == "assistant"]
        try:
            ways = ((turns, True), ([last], True), (turns, False), ([last], False))
            read = ((chosen, asks, self._pieces(chat, chosen, asks=asks)) for chosen, asks in ways)
            taught, asks, pieces = next((way for way in read if way[2]), (turns, True, []))
            before = "".join(piece.text for piece in pieces[:-1])
            prompt = before if asks else self.render(chat, last, asks=True)
        except jinja2.TemplateSyntaxError as error:
            raise DataRefused(f"the model's chat template, line {error.lineno}: {error.message}") from None
        except Exception as error:  # noqa: BLE001  a template can raise anything on a person's data
            said = (
                error.message
                if isinstance(error, jinja2.TemplateError)
                else f"{type(error).__name__}: {error}"
            )
            raise RecordProblem(record.place, f"the model's chat template: {said}") from None
        if not pieces:
            raise RecordProblem(
                record.place,
                "the model's chat template does not put the answer after its prompt; try dataset.template",
            )
        text = "".join(piece.text for piece in pieces)
        notes = [LAST_ANSWER_ONLY] * (len(taught) < len(turns) and any(chat.learned[:last]))
        notes += [ASKED_OTHERWISE] * (not asks)
        notes += [REASONING_LEFT_OUT] * any(part.strip() not in text for part in chat.reasoning)
        notes += [TOOLS_LEFT_OUT] * any(str(name) not in text for name in _names(chat.tools))
        return Example(
            tuple(pieces),
            prompt,
            reference_of(chat.messages),
            tuple(chat.messages[:last]),
            has_special_tokens=True,
            notes=tuple(notes),
        )

    def _pieces(self, chat: Chat, turns: list[int], *, asks: bool) -> list[Piece]:
        """Empty if the text of some turn does not begin with the text before it.

        With `asks`, the words that ask for an answer belong to the text before it.
        """
        pieces, done = [], ""
        for turn in turns:
            prompt = self.render(chat, turn, asks=asks)
            upto = self.render(chat, turn + 1, asks=False)
            if not (prompt.startswith(done) and upto.startswith(prompt)):
                return []
            answer = self._up_to_its_end(upto[len(prompt) :])
            pieces += [Piece(prompt[len(done) :], is_learned=False), Piece(answer, chat.learned[turn])]
            done = prompt + answer
        return pieces

    def _up_to_its_end(self, answer: str) -> str:
        """An answer without what the template writes behind the token that ends it, as that is never generated."""
        ends = [answer.rindex(stop) + len(stop) for stop in self._stops if stop in answer]
        return answer[: max(ends)] if ends else answer


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
        return Example(tuple(pieces), None, reference_of(chat.messages))


def _names(tools: list[Any] | None) -> list[Any]:
    functions = [tool.get("function", tool) for tool in tools or []]
    return [function["name"] for function in functions if isinstance(function, dict) and "name" in function]
