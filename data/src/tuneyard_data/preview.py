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
        ids, done, shown = [int(token) for token in record.tokens], 0, ""
        for is_learned, group in groupby(record.learned, key=bool):
            # Decoded from the beginning: by itself a part may lose the space that it begins with.
            done += sum(1 for _ in group)
            upto = tokenizer.decode_all(ids[:done])
            text, shown = upto[len(shown) :], upto
            parts.append(f"{OPEN}{text}{CLOSE}" if is_learned else text)
        parts.append("\n")
    return "".join(parts)
