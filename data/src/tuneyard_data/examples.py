# SPDX-License-Identifier: Apache-2.0
"""A record in pieces of text, some of them to be learned: what is made of a record before tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuneyard_data.records import Record


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
    """What a model is asked to continue in evaluation; None for plain text."""
    reference: str
    """What it should answer."""
    messages: tuple[dict[str, Any], ...] | None = None
    """Chat: the messages of the prompt."""
    has_special_tokens: bool = False
    """The text already holds the tokenizer's special tokens, as chat templates write them."""
    rejected: "Example | None" = None
    """The same prompt with the answer that is not chosen, for a preference."""
    notes: tuple[str, ...] = ()
    """What a person should know of this record, in sentences that many records share; counted over the data set."""

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join([piece.text for piece in self.pieces])

    @property
    def learned_text(self) -> str:
        """What is learned of it."""
        return "".join([piece.text for piece in self.pieces if piece.is_learned])

    @property
    def sides(self) -> tuple["Example", ...]:
        """The example itself, and the rejected one if there is one."""
        return (self,) if self.rejected is None else (self, self.rejected)


Renderer = Callable[[Record], Example]
