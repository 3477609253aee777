# SPDX-License-Identifier: Apache-2.0
"""Turns a record of any columns into pieces of text, some of them to be learned.

Job templates are Jinja2 in a sandbox where an unknown column is an error. Chat templates come with the model and
run in the same sandbox, with what transformers gives them, so that the text equals what a serving program makes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tuneyard_api.job import Template

from tuneyard_data.records import Place, Record, describe_value
from tuneyard_data.refused import DataRefused

ROLES = ("system", "user", "assistant", "tool")
_COLUMNS = {"chat": ("messages",), "promptCompletion": ("prompt", "completion"), "text": ("text",)}


@dataclass(frozen=True)
class Piece:
    """A part of a record's text."""

    text: str
    is_learned: bool


@dataclass(frozen=True)
class Example:
    """A record as the model sees it, before tokens."""

    pieces: tuple[Piece, ...]
    prompt: str | None
    """Prompt that a model continues in the evaluation; None for plain text."""
    reference: str
    """Expected answer."""
    messages: tuple[dict[str, Any], ...] | None = None
    """Messages of the prompt, for chat."""
    has_special_tokens: bool = False
    """The text already holds the tokenizer's special tokens, as chat templates write them."""


class RecordProblem(ValueError):  # noqa: N818  a problem of the record, not of the program
    """Raised for a record that can't be used; the message says why."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


Renderer = Callable[[Record], Example]


def detect_format(first: Record, declared: str) -> str:
    """The format of a data set without a template, from the columns of its first record.

    Raises:
        DataRefused: saying which columns there are and which would be understood.
    """
    if declared != "auto":
        return declared
    for name, columns in _COLUMNS.items():
        if all(column in first.values for column in columns):
            return name
    known = [column for columns in _COLUMNS.values() for column in columns]
    raise DataRefused(
        f"{first.place}: no known format: the columns are {_listed(first.values)}{_did_you_mean(first.values, known)};"
        " try columns `prompt` and `completion`, or `messages`, or `text`, or set dataset.template"
    )


def renderer_of(
    declared: str, template: Template | None, chat: "ChatTemplate | None", first: Record
) -> Renderer:
    """The renderer that turns each record into an Example; the first record decides the format.

    Raises:
        DataRefused: for a template that can't be read and for chat without a chat template.
    """
    if template is not None:
        return _template_renderer(template)
    kind = detect_format(first, declared)
    if kind == "text":
        return lambda record: Example((Piece(_string(record, "text"), is_learned=True),), None, "")
    if kind == "promptCompletion":
        return lambda record: _pair(_string(record, "prompt"), _string(record, "completion"))
    if chat is None:
        raise DataRefused(
            f"{first.place}: the data set holds chats, but the model's tokenizer has no chat template; try an"
            " instruction-tuned model, or dataset.template with prompt and completion made from `messages`"
        )
    return chat.example


def _pair(prompt: str, completion: str) -> Example:
    return Example((Piece(prompt, is_learned=False), Piece(completion, is_learned=True)), prompt, completion)


def _template_renderer(template: Template) -> Renderer:
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    compiled: dict[str, jinja2.Template] = {}
    for name in ("prompt", "completion"):
        try:
            compiled[name] = environment.from_string(getattr(template, name))
        except jinja2.TemplateSyntaxError as error:
            raise DataRefused(f"dataset.template.{name}: line {error.lineno}: {error.message}") from None

    def render(record: Record) -> Example:
        texts = {}
        for name, part in compiled.items():
            try:
                texts[name] = part.render(record.values)
            except jinja2.UndefinedError as error:
                wanted = [word for word in str(error.message).split("'")[1:2] if word not in record.values]
                hint = _did_you_mean(wanted, record.values, there=True)
                raise RecordProblem(
                    record.place,
                    f"dataset.template.{name}: {error.message}; the columns are {_listed(record.values)}{hint}",
                ) from None
            except Exception as error:  # noqa: BLE001  any filter can raise anything on a person's data
                raise RecordProblem(
                    record.place, f"dataset.template.{name}: {type(error).__name__}: {error}"
                ) from None
            if not texts[name].strip():
                raise RecordProblem(
                    record.place, f"dataset.template.{name} renders to nothing but white space"
                )
        return _pair(texts["prompt"], texts["completion"])

    return render


def _string(record: Record, column: str) -> str:
    if column not in record.values:
        others = [
            name for name in record.values if name not in _COLUMNS["promptCompletion"] or column == "text"
        ]
        raise RecordProblem(
            record.place,
            f"column `{column}` is missing; the columns are {_listed(record.values)}"
            f"{_did_you_mean([column], others, there=True)}",
        )
    value = record.values[column]
    if not isinstance(value, str):
        raise RecordProblem(
            record.place_of(column), f"`{column}` must be a string (got {describe_value(value)})"
        )
    if not value.strip():
        raise RecordProblem(record.place_of(column), f"`{column}` is empty; try to leave the record out")
    return value


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`, by which some chat templates mark the assistant's words: rendered as if it were not there."""

    tags = {"generation"}  # noqa: RUF012  as the base class has it

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """The chat template of a tokenizer."""

    def __init__(self, source: str, special_tokens: dict[str, str], end: str) -> None:
        """`special_tokens` are the variables `bos_token`, `eos_token` and so on; `end` ends an answer."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = lambda value, indent=None: json.dumps(
            value, ensure_ascii=False, indent=indent
        )
        environment.globals["raise_exception"] = _raise_template_error
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise DataRefused(f"the model's chat template, line {error.lineno}: {error.message}") from None
        self._special_tokens, self._end = special_tokens, end

    def render(self, messages: Sequence[dict[str, Any]], *, asks: bool) -> str:
        """The text of `messages`; with `asks`, up to where the assistant begins to answer."""
        return self._template.render(messages=messages, add_generation_prompt=asks, **self._special_tokens)

    def example(self, record: Record) -> Example:
        """A chat whose assistant turns are learned.

        Where the template writes earlier turns differently once others follow, only the last turn is.
        """
        messages = checked_messages(record)
        try:
            pieces = self._pieces(messages, [i for i, m in enumerate(messages) if m["role"] == "assistant"])
            pieces = pieces or self._pieces(messages, [len(messages) - 1])
            prompt = self.render(messages[:-1], asks=True)
        except jinja2.TemplateError as error:
            raise RecordProblem(
                record.place_of("messages"), f"the model's chat template: {error.message}"
            ) from None
        if not pieces:
            raise RecordProblem(
                record.place,
                "the model's chat template does not put the answer after its prompt; try dataset.template",
            )
        return Example(
            tuple(pieces), prompt, str(messages[-1]["content"]), tuple(messages[:-1]), has_special_tokens=True
        )

    def _pieces(self, messages: list[dict[str, Any]], turns: list[int]) -> list[Piece]:
        """Empty if the text of some turn does not begin with the text before it."""
        pieces, done = [], ""
        for turn in turns:
            prompt = self.render(messages[:turn], asks=True)
            upto = self.render(messages[: turn + 1], asks=False)
            if not (prompt.startswith(done) and upto.startswith(prompt)):
                return []
            answer = upto[len(prompt) :]
            if self._end and self._end in answer:
                # Text after the end of an answer comes from the template and is never generated.
                answer = answer[: answer.rindex(self._end) + len(self._end)]
            pieces += [Piece(prompt[len(done) :], is_learned=False), Piece(answer, is_learned=True)]
            done = prompt + answer
        return pieces


def checked_messages(record: Record) -> list[dict[str, Any]]:
    """The `messages` of a chat record: known roles, in order, ending with the assistant."""
    if "messages" not in record.values:
        raise RecordProblem(
            record.place,
            f"column `messages` is missing; the columns are {_listed(record.values)}"
            f"{_did_you_mean(['messages'], record.values, there=True)}",
        )
    messages, place = record.values["messages"], record.place_of("messages")
    if not isinstance(messages, list) or not messages:
        raise RecordProblem(place, f"`messages` must be a list with content (got {describe_value(messages)})")
    before = None
    for index, message in enumerate(messages):
        before = _checked_role(message, before, f"messages[{index}]", place)
    if before != "assistant":
        raise RecordProblem(
            place,
            f"the last message must be the assistant's, because the model learns to write it (got {before})",
        )
    return messages


def _checked_role(message: Any, before: str | None, name: str, place: Place) -> str:
    if not isinstance(message, dict):
        raise RecordProblem(
            place, f"{name} must be an object with role and content (got {describe_value(message)})"
        )
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        hint = _did_you_mean([str(role)], ROLES, there=True)
        raise RecordProblem(
            place, f"{name}.role must be one of {', '.join(ROLES)} (got {describe_value(role)}){hint}"
        )
    if role == "system" and before is not None:
        raise RecordProblem(place, f"{name}: a system message must be the first one (got one after {before})")
    if role == "assistant" and before not in {"user", "tool"}:
        raise RecordProblem(
            place, f"{name}: the assistant must answer user or tool (got one after {before or 'nothing'})"
        )
    if role == "user" and before == "user":
        raise RecordProblem(place, f"{name}: two user messages in a row; try to join them")
    if not isinstance(content, str) or not content.strip():
        raise RecordProblem(
            place, f"{name}.content must be a string with content (got {describe_value(content)})"
        )
    return str(role)


def _raise_template_error(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _listed(columns: Any) -> str:
    return ", ".join(f"`{column}`" for column in columns) or "none"


def _did_you_mean(wanted: Any, known: Any, *, there: bool = False) -> str:
    """`; did you mean ...?` for the closest pair of names."""
    for name in (name for name in wanted if name not in known):
        lowered = {str(other).lower(): str(other) for other in known}
        if match := get_close_matches(str(name).lower(), list(lowered), n=1):
            meant = lowered[match[0]]
            return f"; did you mean `{meant}`?" if there else f"; did you mean `{meant}` by `{name}`?"
    return ""
