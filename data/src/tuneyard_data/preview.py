# SPDX-License-Identifier: Apache-2.0
"""Shows people what the model sees, and which part of it is under the loss."""

from itertools import groupby

from tuneyard_data.tokenization import TextTokenizer, TokenizedRecord

OPEN, CLOSE = "⟦", "⟧"


def render_preview(records: list[TokenizedRecord], tokenizer: TextTokenizer) -> str:
    """The records back from their tokens, special tokens included, with the part under the loss in double brackets."""
    parts = [f"What the model learns is between {OPEN} and {CLOSE}.\n"]
    for number, record in enumerate(records, start=1):
        cut = f", cut from {record.full_length}" if record.is_cut else ""
        parts.append(
            f"\n--- record {number}: {len(record.tokens)} tokens{cut}, {int(record.learned.sum())} learned\n"
        )
        for is_learned, group in groupby(
            zip(record.learned, record.tokens, strict=True), key=lambda pair: bool(pair[0])
        ):
            text = tokenizer.decode_all([int(token) for _, token in group])
            parts.append(f"{OPEN}{text}{CLOSE}" if is_learned else text)
        parts.append("\n")
    return "".join(parts)
