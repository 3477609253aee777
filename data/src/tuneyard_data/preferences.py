# SPDX-License-Identifier: Apache-2.0
"""Reads a preference out of a record: one prompt, and of two answers the one that is chosen.

Forms, as TRL has them: `prompt`, `chosen` and `rejected` as strings; the same as lists of messages; and whole chats in `chosen` and
`rejected`, which differ in their last message alone.
"""

from dataclasses import replace
from typing import Any

from tuneyard_data.chat_template import ChatTemplate, PlainChat
from tuneyard_data.chats import COLUMNS, SYSTEM_COLUMNS, is_message, messages_in
from tuneyard_data.examples import Example, Piece
from tuneyard_data.known_forms import form_of
from tuneyard_data.records import Record, RecordProblem, describe_value, did_you_mean, listed
from tuneyard_data.refused import DataRefused

SIDES = ("chosen", "rejected")
_NAMES_OF_PROMPT = ("question", "instruction", "query", "input")
_OF_CHATS = ("tools", "functions", "documents", "chat_template_kwargs", *SYSTEM_COLUMNS)


def preference_of(record: Record, chat: ChatTemplate | PlainChat | None) -> Example:
    """The chosen answer, with the rejected one beside it; both continue the same prompt.

    Raises:
        RecordProblem: for what is no preference.
        DataRefused: for chats without a chat template.
    """
    for side in SIDES:
        if side not in record.values:
            if (said := form_of(record.values)) is not None:
                raise RecordProblem(record.place, said)
            raise RecordProblem(
                record.place,
                f"column `{side}` is missing, and method dpo compares `chosen` with `rejected`; the columns are"
                f" {listed(record.values)}{did_you_mean([side], record.values, there=True)}",
            )
    if record.values["chosen"] == record.values["rejected"]:
        raise RecordProblem(
            record.place_of("rejected"), "`chosen` and `rejected` are equal; try to leave the record out"
        )
    if isinstance(record.values["chosen"], list | dict):
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
        hint = ""
        if column == "prompt" and column not in record.values:
            others = [name for name in _NAMES_OF_PROMPT if isinstance(record.values.get(name), str)]
            hint = (
                f"; try that name for `{others[0]}`"
                if others
                else "; try it with what both answers begin with"
            )
        raise RecordProblem(
            record.place_of(column),
            f"`{column}` must be a string with content beside a string in `chosen` (got {found})"
            + (hint or "; try strings in all of `prompt`, `chosen` and `rejected`, or lists of messages"),
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
    prompt = messages_in(record.values.get("prompt"))
    if not isinstance(prompt, list) and len(chosen) == 1:
        # As LLaMA-Factory has it: the chat before the answers in a column of its own.
        there = [name for name in COLUMNS if record.values.get(name)]
        prompt = messages_in(record.values[there[0]]) if there else prompt
    if isinstance(prompt, str) and len(chosen) == 1:
        raise RecordProblem(
            record.place_of("prompt"),
            "`prompt` is a string beside messages in `chosen`; try a list with a message of the user in it",
        )
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
    value = messages_in(record.values[side])
    if is_message(value):
        return [value]
    if not isinstance(value, list) or not value:
        raise RecordProblem(
            record.place_of(side),
            f"`{side}` must be a list of messages, as `chosen` is one (got {describe_value(value)})",
        )
    return value
