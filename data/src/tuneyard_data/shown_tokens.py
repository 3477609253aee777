# SPDX-License-Identifier: Apache-2.0
"""Some records token by token, for people who want to see which tokens are learned.

They are the tokens that training reads, a bounded number of them, of records without a hint at personal data.
"""

from collections.abc import Iterator
from itertools import groupby

from tuneyard_api.base import Contract
from tuneyard_api.problems import clip

from tuneyard_data.loaded import Loaded
from tuneyard_data.preview import CLOSE, OPEN
from tuneyard_data.tokenization import TextTokenizer, TokenizedRecord

LEARNED = "learned.json"
"""Where prepare keeps the shown records of the training data, beside its tokens."""
MAX_RECORDS = 4
MAX_TOKENS = 400
"""Tokens of a record that are kept: the rest of a long one is only counted."""
_BEFORE = 100
"""Tokens before the first learned one that are shown, where a record is longer."""
_MAX_TEXT = 80
"""Longest text of a token, in characters."""
_LOOKED_AT = 10_000
"""Records among which those to show are looked for."""
_SIDES = ("chosen", "rejected")


class ShownTokens(Contract):
    """A part of a record in tokens, special ones included."""

    place: str
    side: str = ""
    """`chosen` or `rejected`, of a preference."""
    before: int
    """Tokens before the first shown one."""
    texts: tuple[str, ...]
    """What each token adds to the text; tokens that hold a part of a character add nothing."""
    learned: tuple[bool, ...]
    """Whether a token counts in the loss."""
    behind: int
    """Tokens behind the last shown one, those that were cut off included."""

    def boxes(self) -> Iterator[tuple[str, bool]]:
        """The text of each token, in which line breaks can be seen, and whether it is learned."""
        for text, is_learned in zip(self.texts, self.learned, strict=True):
            yield text.replace("\n", "\u21b5\n"), is_learned

    def marked(self) -> str:
        """The text, with what is learned in double brackets."""
        pairs = zip(self.texts, self.learned, strict=True)
        parts = [
            (is_learned, "".join(text for text, _ in run))
            for is_learned, run in groupby(pairs, lambda pair: pair[1])
        ]
        return "".join(f"{OPEN}{text}{CLOSE}" if is_learned else text for is_learned, text in parts)


class Learned(Contract):
    """learned.json."""

    schema_version: int = 1
    records: tuple[ShownTokens, ...] = ()

    def content(self) -> bytes:
        """The content of the file."""
        return self.model_dump_json(by_alias=True).encode()


def shown_tokens(
    place: str, record: TokenizedRecord, tokenizer: TextTokenizer, *, most: int = MAX_TOKENS, side: str = ""
) -> ShownTokens:
    """At most `most` tokens of a record: from its beginning, or from near the first learned one where that lies behind them."""
    first = record.first_learned
    start = 0 if first < most - _BEFORE or len(record.tokens) <= most else max(0, first - _BEFORE)
    end = min(len(record.tokens), start + most)
    # The text of a token depends on the one before it.
    texts = tokenizer.texts_of([int(token) for token in record.tokens[max(0, start - 1) : end]])
    return ShownTokens(
        place=place,
        side=side,
        before=start,
        texts=tuple(clip(text, _MAX_TEXT) for text in texts[-(end - start) :]),
        # Nothing precedes the first token, so it is never predicted.
        learned=tuple(bool(record.learned[at]) and at > 0 for at in range(start, end)),
        behind=record.full_length - end,
    )


def learned_of(training: Loaded, tokenizer: TextTokenizer) -> Learned:
    """The first records of the training data that may be shown, as they are kept for training."""
    harmless = {str(place) for place, _ in training.shown}
    chosen = range(len(training.places)) if training.chosen is None else training.chosen
    records: list[ShownTokens] = []
    for index in range(min(len(training), _LOOKED_AT)):
        place = str(training.places[int(chosen[index])])
        if place not in harmless:
            continue
        sides = _SIDES if training.sides > 1 else ("",)
        for at, side in enumerate(sides):
            record = training.read(index * training.sides + at)
            records.append(shown_tokens(place, record, tokenizer, side=side))
        if len(records) >= MAX_RECORDS:
            break
    return Learned(records=tuple(records))
