# SPDX-License-Identifier: Apache-2.0
"""Turns a record of any columns into pieces of text, some of them to be learned.

Templates of jobs are Jinja2 in a sandbox where an unknown column is an error.
"""

import jinja2
from tuneyard_api.job_inputs import Template

from tuneyard_data.chat_template import ChatTemplate, PlainChat
from tuneyard_data.chats import is_chat
from tuneyard_data.examples import Example, Piece, Renderer
from tuneyard_data.preferences import SIDES, preference_of
from tuneyard_data.records import Record, RecordProblem, describe_value, did_you_mean, listed
from tuneyard_data.refused import DataRefused
from tuneyard_data.template_values import NotTextError, as_template_value, build_environment

_COLUMNS = {"chat": ("messages",), "promptCompletion": ("prompt", "completion"), "text": ("text",)}


def detect_format(first: Record, declared: str) -> str:
    """The format of a data set without a template, from the columns of its first record.

    Raises:
        DataRefused: saying which columns there are and which would be understood.
    """
    if declared != "auto":
        return declared
    if is_chat(first.values):
        return "chat"
    for name, columns in _COLUMNS.items():
        if all(column in first.values for column in columns):
            return name
    if set(SIDES) <= first.values.keys():
        raise DataRefused(
            f"{first.place}: `chosen` and `rejected` are preferences, which method: dpo learns from; try it, or"
            " dataset.template with the answer that is to be learned"
        )
    known = [column for columns in _COLUMNS.values() for column in columns]
    raise DataRefused(
        f"{first.place}: no known format: the columns are {listed(first.values)}{did_you_mean(first.values, known)};"
        " try columns `prompt` and `completion`, or `messages`, or `text`, or set dataset.template"
    )


def renderer_of(
    declared: str, template: Template | None, chat: ChatTemplate | PlainChat | None, first: Record
) -> Renderer:
    """The renderer that turns each record into an Example; the first record decides the format.

    Raises:
        DataRefused: for a template that can't be read and for chat without a chat template.
    """
    if template is not None:
        return _template_renderer(template)
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
