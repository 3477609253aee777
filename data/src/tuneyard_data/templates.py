# SPDX-License-Identifier: Apache-2.0
"""Turns a record of any columns into pieces of text, some of them to be learned.

Templates of jobs are Jinja2 in a sandbox where an unknown column is an error.
"""

from collections.abc import Mapping
from typing import Any

import jinja2
from tuneyard_api.job_inputs import Template

from tuneyard_data.chat_template import ChatTemplate, PlainChat
from tuneyard_data.chats import COLUMNS, holds_messages, is_chat, is_message
from tuneyard_data.examples import Example, Piece, Renderer
from tuneyard_data.preferences import SIDES, preference_of
from tuneyard_data.records import Record, RecordProblem, describe_value, did_you_mean, listed
from tuneyard_data.refused import DataRefused
from tuneyard_data.template_values import NotTextError, as_template_value, build_environment

_COLUMNS = {"chat": COLUMNS, "promptCompletion": ("prompt", "completion"), "text": ("text",)}
_MEDIA = ("image", "images", "audio", "audios", "video", "videos")
"""Columns of data sets for models that see or hear."""
_WEIGHTS = ("weight", "train", "trainable")
"""Columns that may say of a whole record whether, or how much, it is learned."""
_NO_TEXT = frozenset({*_MEDIA, *_WEIGHTS, "label"})


def detect_format(first: Record, declared: str) -> str:
    """The format of a data set without a template, from the columns of its first record.

    Raises:
        DataRefused: saying which columns there are and which would be understood.
    """
    if declared != "auto":
        return declared
    if _is_table(first.values):
        raise DataRefused(
            f"{first.place}: this is a table by its columns, each with the values of all records; try one object per record, as"
            " pandas writes them with to_json(orient='records', lines=True)"
        )
    if is_chat(first.values):
        return "chat"
    # A null is no value: files in columns have every column in each record.
    for there in ([name for name, value in first.values.items() if value is not None], [*first.values]):
        for name, columns in _COLUMNS.items():
            if set(columns) <= set(there) or (name == "chat" and set(columns) & set(there)):
                return name
    if set(SIDES) <= first.values.keys():
        raise DataRefused(
            f"{first.place}: `chosen` and `rejected` are preferences, which method: dpo learns from; try it, or"
            " dataset.template with the answer that is to be learned"
        )
    if is_message(first.values):
        raise DataRefused(
            f"{first.place}: this is one message of a chat; a record has all messages of a chat in a list, in its column"
            " `messages`"
        )
    for name, value in first.values.items():
        if holds_messages(value):
            raise DataRefused(
                f"{first.place}: the column `{name}` holds a chat; try the name `messages` for it"
            )
    known = [column for columns in _COLUMNS.values() for column in columns]
    raise DataRefused(
        f"{first.place}: no known format: the columns are {listed(first.values)}{did_you_mean(first.values, known)};"
        " try columns `prompt` and `completion`, or `messages`, or `text`, or set dataset.template"
    )


def _is_table(values: Mapping[str, Any]) -> bool:
    """Whether each column holds a value for each record: as a list, or by the records' numbers."""
    if all(isinstance(value, dict) and "0" in value for value in values.values()):
        return True
    plain = [
        value for value in values.values() if isinstance(value, list) and not any(map(is_message, value))
    ]
    return len(plain) == len(values) > 1 and len({len(value) for value in plain}) == 1


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
        return render(record)

    return checked


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
                raise RecordProblem(
                    record.place,
                    f"dataset.template.{name}: {error.message}; the columns are {listed(record.values)}{hint}",
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
            f"{did_you_mean([column], others, there=True)}",
        )
    value = record.values[column]
    if not isinstance(value, str):
        raise RecordProblem(
            record.place_of(column), f"`{column}` must be a string (got {describe_value(value)})"
        )
    if not value.strip():
        raise RecordProblem(record.place_of(column), f"`{column}` is empty; try to leave the record out")
    return value
