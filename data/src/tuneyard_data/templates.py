# SPDX-License-Identifier: Apache-2.0
"""Turns a record of any columns into pieces of text, some of them to be learned.

Templates of jobs are Jinja2 in a sandbox where an unknown column is an error.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import jinja2
from tuneyard_api.job_inputs import Template

from tuneyard_data.chat_template import ChatTemplate, PlainChat
from tuneyard_data.chats import (
    COLUMNS,
    ONE_FORM,
    SYSTEM_COLUMNS,
    holds_messages,
    is_chat,
    is_message,
    messages_in,
)
from tuneyard_data.examples import Example, Piece, Renderer
from tuneyard_data.known_forms import form_of, holds_records, is_one_message, wrapped_records
from tuneyard_data.messages import role_of
from tuneyard_data.preferences import SIDES, preference_of
from tuneyard_data.records import Record, RecordProblem, describe_value, did_you_mean, listed
from tuneyard_data.refused import DataRefused
from tuneyard_data.template_values import NotTextError, as_template_value, build_environment

_COLUMNS = {"chat": COLUMNS, "promptCompletion": ("prompt", "completion"), "text": ("text",)}
_MEDIA = ("image", "images", "audio", "audios", "video", "videos")
"""Columns of data sets for models that see or hear."""
_WEIGHTS = ("weight", "train", "trainable")
"""Columns that may say of a whole record whether, or how much, it is learned."""
_MEANT = frozenset(
    {*SYSTEM_COLUMNS, "tools", "functions", "documents", "history", "context", "input", "suffix"}
)
"""Columns that may be meant to be in the text beside others; only chats and templates have some of them."""
NOT_READ = "the column `{}` is not read beside strings; try `messages`, or dataset.template"
NOT_IN_CHAT = "the column `{}` is not read beside messages, which do not have its text"
CHAT_IN_STRING = "a string holds messages as JSON and is learned as that text; for a chat, try lists of messages, not their JSON"
_BEGINS_CHAT = ('[{"role"', '[{"from"', '[{"content"', "[{'role'", "[{'from'")
_BESIDE_CHATS = ("prompt", "completion", "history", "suffix")
"""Columns beside the messages of a chat that often repeat what they say."""
_NO_TEXT = frozenset({*_MEDIA, *_WEIGHTS, "label", "mask"})


def detect_format(first: Record, declared: str) -> str:
    """The format of a data set without a template, from the columns of its first record.

    Raises:
        DataRefused: saying which columns there are and which would be understood.
    """
    values = first.values
    if declared != "auto":
        if _format_of(values) is None and not is_chat(values) and (said := form_of(values)) is not None:
            raise DataRefused(f"{first.place}: {said}")
        return declared
    has_sides = set(SIDES) <= values.keys()
    is_table = _is_table(values)
    is_pair = has_sides and is_message(values["chosen"])
    if is_chat(values) and not (is_table or is_pair or holds_records(values)):
        return "chat"
    name = _format_of(values)
    if name is not None and not is_table and not (name == "text" and is_one_message(values)):
        return name
    raise DataRefused(f"{first.place}: {_no_format(values, is_table=is_table, has_sides=has_sides)}")


def _format_of(values: Mapping[str, Any]) -> str | None:
    # A null is no value: files in columns have every column in each record.
    for there in ({name for name, value in values.items() if value is not None}, values.keys()):
        for name, columns in _COLUMNS.items():
            if set(columns) <= there or (name == "chat" and set(columns) & there and not is_chat(values)):
                return name
    return None


def _no_format(values: Mapping[str, Any], *, is_table: bool, has_sides: bool) -> str:
    """What to say of the first record of a data set in no known format."""
    if has_sides:
        return (
            "`chosen` and `rejected` are preferences, which method: dpo learns from; try it, or dataset.template with the"
            " answer that is to be learned"
        )
    if (said := form_of(values)) is not None:
        return said
    if is_table:
        return (
            "this is a table by its columns, each with the values of all records; try one object per record, as pandas writes"
            " them with to_json(orient='records', lines=True)"
        )
    for name, value in values.items():
        if holds_messages(messages_in(value)):
            return f"the column `{name}` holds a chat; try the name `messages` for it"
    known = [column for columns in _COLUMNS.values() for column in columns]
    return (
        f"no known format: the columns are {listed(values)}{did_you_mean(values, known)}; try columns `prompt` and"
        " `completion`, or `messages`, or `text`, or set dataset.template"
    )


def _is_table(values: Mapping[str, Any]) -> bool:
    """Whether each column holds a value for each record: as a list, or by the records' numbers."""
    if values and all(isinstance(value, dict) and "0" in value for value in values.values()):
        return True
    plain = [
        value for value in values.values() if isinstance(value, list) and not any(map(is_message, value))
    ]
    is_one = len(values) == 1 and "text" not in values
    return len(plain) == len(values) > 0 and not is_one and len({len(value) for value in plain}) == 1


def renderer_of(
    declared: str, template: Template | None, chat: ChatTemplate | PlainChat | None, first: Record
) -> Renderer:
    """The renderer that turns each record into an Example; the first record decides the format.

    Raises:
        DataRefused: for a template that can't be read and for chat without a chat template.
    """
    if template is not None:
        return _template_renderer(template)
    render = _renderer_without_template(declared, chat, first)

    def checked(record: Record) -> Example:
        if not _NO_TEXT.isdisjoint(record.values):
            _check_what_is_no_text(record)
        example = render(record)
        notes = tuple(_notes_on_columns(record, example))
        return replace(example, notes=example.notes + notes) if notes else example

    return checked


def _notes_on_columns(record: Record, example: Example) -> Iterator[str]:
    """What is beside the text that is learned and is not read, and strings that hold a chat."""
    if example.messages is not None:
        for name in _BESIDE_CHATS if len(record.values) > 1 else ():
            value = record.values.get(name)
            if isinstance(value, str) and value.strip() not in example.text:
                yield NOT_IN_CHAT.format(name)
        return
    if not _MEANT.isdisjoint(record.values):
        for name in sorted(_MEANT & record.values.keys()):
            if record.values[name]:
                yield NOT_READ.format(name)
    if any(piece.text.startswith(_BEGINS_CHAT) for piece in example.pieces):
        yield CHAT_IN_STRING


def _check_what_is_no_text(record: Record) -> None:
    """Columns beside the text that say what nobody here can do: they are not passed over in silence."""
    for name in sorted(_NO_TEXT & record.values.keys()):
        value, said = record.values[name], None
        if name in _MEDIA and value:
            said = "models learn from text alone here; try to leave the record out"
        elif name in _WEIGHTS and value is not None and value not in (True, 1):
            said = (
                "all records are learned alike; try to leave the record out, or another name for the column"
            )
        elif name == "label" and value is False:
            said = "it says that the answer is not wanted, and all answers are learned; try to leave the record out"
        elif name == "mask" and value is not None and role_of(value) != "user":
            said = (
                "it says whose messages are not learned, and only the assistant's are; try to leave the column out, and"
                " `weight` 0 in messages that are not to be learned"
            )
        if said:
            raise RecordProblem(record.place_of(name), f"`{name}` is {describe_value(value)}: {said}")


def _renderer_without_template(
    declared: str, chat: ChatTemplate | PlainChat | None, first: Record
) -> Renderer:
    if declared == "preference":
        return lambda record: preference_of(record, chat)
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
    environment = build_environment()
    compiled: dict[str, jinja2.Template] = {}
    for name in ("prompt", "completion"):
        try:
            compiled[name] = environment.from_string(getattr(template, name))
        except jinja2.TemplateSyntaxError as error:
            raise DataRefused(f"dataset.template.{name}: line {error.lineno}: {error.message}") from None

    def render(record: Record) -> Example:
        values = {name: as_template_value(value) for name, value in record.values.items()}
        texts = {}
        for name, part in compiled.items():
            try:
                texts[name] = part.render(values)
            except jinja2.UndefinedError as error:
                wanted = [word for word in str(error.message).split("'")[1:2] if word not in record.values]
                hint = did_you_mean(wanted, record.values, there=True)
                inside = wrapped_records(record.values)
                raise RecordProblem(
                    record.place,
                    f"dataset.template.{name}: {error.message}; the columns are {listed(record.values)}"
                    + (f"; {inside}" if inside else hint),
                ) from None
            except NotTextError as error:
                raise RecordProblem(record.place, f"dataset.template.{name}: {error}") from None
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
            f"column `{column}` is missing; the columns are {listed(record.values)}"
            f"{did_you_mean([column], others, there=True)}" + ONE_FORM * is_chat(record.values),
        )
    value = record.values[column]
    if not isinstance(value, str):
        hint = "; try messages in `prompt` and in `completion`, or strings in both" * holds_messages(value)
        raise RecordProblem(
            record.place_of(column), f"`{column}` must be a string (got {describe_value(value)}){hint}"
        )
    if not value.strip():
        raise RecordProblem(record.place_of(column), f"`{column}` is empty; try to leave the record out")
    return value
