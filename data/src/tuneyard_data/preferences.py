# SPDX-License-Identifier: Apache-2.0
"""Reads a preference out of a record: one prompt, and of two answers the one that is chosen.

Forms, as TRL has them: `prompt`, `chosen` and `rejected` as strings; the same as lists of messages; and whole chats in `chosen` and
`rejected`, which differ in their last message alone.
"""

from dataclasses import replace
from typing import Any

from tuneyard_data.chat_template import ChatTemplate, PlainChat
from tuneyard_data.chats import SYSTEM_COLUMNS
from tuneyard_data.examples import Example, Piece
from tuneyard_data.records import Record, RecordProblem, describe_value, did_you_mean, listed
from tuneyard_data.refused import DataRefused

SIDES = ("chosen", "rejected")
_OF_CHATS = ("tools", "functions", "documents", "chat_template_kwargs", *SYSTEM_COLUMNS)


def preference_of(record: Record, chat: ChatTemplate | PlainChat | None) -> Example:
    """The chosen answer, with the rejected one beside it; both continue the same prompt.

    Raises:
        RecordProblem: for what is no preference.
        DataRefused: for chats without a chat template.
    """
    for side in SIDES:
        if side not in record.values:
            raise RecordProblem(
                record.place,
                f"column `{side}` is missing, and method dpo compares `chosen` with `rejected`; the columns are"
                f" {listed(record.values)}{did_you_mean([side], record.values, there=True)}",
            )
    if record.values["chosen"] == record.values["rejected"]:
        raise RecordProblem(
            record.place_of("rejected"), "`chosen` and `rejected` are equal; try to leave the record out"
        )
    if isinstance(record.values["chosen"], list):
        chosen, rejected = _chats(record, chat)
    else:
        prompt = _text(record, "prompt")
        chosen, rejected = (_pair(prompt, _text(record, side)) for side in SIDES)
    return replace(chosen, rejected=rejected)


def _pair(prompt: str, answer: str) -> Example:
    return Example((Piece(prompt, is_learned=False), Piece(answer, is_learned=True)), prompt, answer)


def _text(record: Record, column: str) -> str:
    value = record.values.get(column)
    if not isinstance(value, str) or not value.strip():
        found = describe_value(value) if column in record.values else "no such column"
        raise RecordProblem(
            record.place_of(column),
            f"`{column}` must be a string with content beside a string in `chosen` (got {found}); try strings in all of"
            " `prompt`, `chosen` and `rejected`, or lists of messages",
        )
    return value


def _chats(record: Record, chat: ChatTemplate | PlainChat | None) -> tuple[Example, Example]:
    if chat is None:
        raise DataRefused(
            f"{record.place}: the data set holds chats, but the model's tokenizer has no chat template; try an"
            " instruction-tuned model, or strings in `prompt`, `chosen` and `rejected`"
        )
    prompt, answers = _parts(record)
    kept = {name: record.values[name] for name in _OF_CHATS if name in record.values}
    examples = []
    for side, answer in zip(SIDES, answers, strict=True):
        try:
            one = Record(record.place, kept | {"prompt": prompt, "completion": [answer]}, record.source)
            examples.append(chat.example(one))
        except RecordProblem as problem:
            said = str(problem).replace("completion[0]", f"the last message of `{side}`")
            raise RecordProblem(record.place_of(side), said) from None
    return examples[0], examples[1]


def _parts(record: Record) -> tuple[list[Any], tuple[Any, Any]]:
    """The messages before the answers, and the two answers."""
    chosen, rejected = (_messages(record, side) for side in SIDES)
    prompt = record.values.get("prompt")
    if not isinstance(prompt, list):
        # A string here repeats what the chats say.
        if chosen[:-1] != rejected[:-1] or len(chosen) == 1:
            raise RecordProblem(
                record.place_of("rejected"),
                "`chosen` and `rejected` must be the same chat up to their last message; try a column `prompt` with the"
                " messages before the answers",
            )
        return chosen[:-1], (chosen[-1], rejected[-1])
    for side, messages in zip(SIDES, (chosen, rejected), strict=True):
        if len(messages) != 1:
            raise RecordProblem(
                record.place_of(side),
                f"`{side}` must be one message, the answer to `prompt` (got {len(messages)}); try the messages before it"
                " in `prompt`",
            )
    return prompt, (chosen[0], rejected[0])


def _messages(record: Record, side: str) -> list[Any]:
    value = record.values[side]
    if not isinstance(value, list) or not value:
        raise RecordProblem(
            record.place_of(side),
            f"`{side}` must be a list of messages, as `chosen` is one (got {describe_value(value)})",
        )
    return value
