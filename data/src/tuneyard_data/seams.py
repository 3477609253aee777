# SPDX-License-Identifier: Apache-2.0
"""Where the pieces of a text end among its tokens.

Two ways, which agree: by the offsets that a tokenizer gives; and, where the tokens' own bytes joined are the text, by
their lengths. The second one spares the tokenizer a quarter of its time.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, islice

import numpy as np
import tokenizers
from tokenizers import models

_TRIES = 1000
"""Texts after which it is known whether the bytes of tokens are the text."""


class TokenBytes:
    """The bytes of each token of a byte-level tokenizer."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        texts = _bytes_of_tokens(backend)
        self._lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        self._ends = self._lengths.cumsum()
        self._content = np.frombuffer(b"".join(texts), dtype=np.uint8)
        self._tried = self._failed = 0

    @classmethod
    def of(cls, backend: tokenizers.Tokenizer) -> "TokenBytes | None":
        """None for a tokenizer that is not of this kind."""
        is_bytes = isinstance(backend.model, models.BPE) and b'"ByteLevel"' in state_of(backend.decoder)
        return cls(backend) if is_bytes else None

    @property
    def is_useful(self) -> bool:
        """Whether most texts were what their tokens' bytes are."""
        return self._tried < _TRIES or self._failed * 2 < self._tried

    def cuts(
        self, ids: Sequence[np.ndarray], texts: Sequence[Sequence[str]]
    ) -> list[list[int | None] | None]:
        """How many tokens end with each part of several texts; None for a part that ends within a token.

        None instead of a list if the tokens' bytes are not the text, as after a normalizer.
        """
        parts = [[text.encode() for text in each] for each in texts]
        counts = [len(tokens) for tokens in ids]
        flat = np.concatenate(ids)
        lengths = self._lengths[flat]
        ends = np.concatenate([[0], lengths.cumsum()])
        firsts = np.cumsum([0, *counts[:-1]])
        bounds = ends[[*firsts, len(flat)]]
        is_text = self._are_texts(flat, lengths, ends, bounds, [b"".join(each) for each in parts])
        self._tried += len(is_text)
        self._failed += is_text.count(False)
        # Seams of all texts, counted from the beginning of the first one.
        seams = np.asarray(
            [
                begin + seam
                for begin, each in zip(ends[firsts].tolist(), parts, strict=True)
                for seam in accumulate(map(len, each))
            ]
        )
        cuts = ends.searchsorted(seams, side="right") - 1
        is_seam = (ends[cuts] == seams).tolist()
        found = iter(zip(cuts.tolist(), is_seam, strict=True))
        by_text = [list(islice(found, len(each))) for each in parts]
        return [
            [cut - first if is_there else None for cut, is_there in each] if is_right else None
            for each, first, is_right in zip(by_text, firsts.tolist(), is_text, strict=True)
        ]

    def _are_texts(
        self, flat: np.ndarray, lengths: np.ndarray, ends: np.ndarray, bounds: np.ndarray, texts: list[bytes]
    ) -> list[bool]:
        """Whether the bytes of each text's tokens are the text; `bounds` says where they begin and end among all bytes."""
        places = np.repeat(self._ends[flat] - ends[1:], lengths) + np.arange(ends[-1])
        content = self._content[places]
        if content.tobytes() == b"".join(texts) and np.diff(bounds).tolist() == [*map(len, texts)]:
            return [True] * len(texts)
        return [
            content[begin:end].tobytes() == text
            for begin, end, text in zip(bounds.tolist(), bounds[1:].tolist(), texts, strict=False)
        ]


def state_of(part: object) -> bytes:
    """The settings of a part of a tokenizer as JSON."""
    return part.__getstate__() if part is not None else b""  # type: ignore[return-value]


def _bytes_of_tokens(backend: tokenizers.Tokenizer) -> list[bytes]:
    """The bytes of each id; of one that is no token, none."""
    byte_of = {character: byte for byte, character in _byte_level_alphabet().items()}
    vocabulary = backend.get_vocab(with_added_tokens=False)
    added = backend.get_added_tokens_decoder()
    texts = [b""] * (1 + max([*vocabulary.values(), *added]))
    for token, number in vocabulary.items():
        try:
            texts[number] = bytes([byte_of[character] for character in token])
        except KeyError:
            texts[number] = token.encode()
    for number, added_token in added.items():
        texts[number] = added_token.content.encode()
    return texts


def _byte_level_alphabet() -> dict[int, str]:
    """The character that stands for each byte: the byte's own where it can be seen, else one from 256 on (as of GPT-2)."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + at) for at, byte in enumerate(others)}


def cuts_by_offsets(encoding: tokenizers.Encoding, lengths: Sequence[int]) -> list[int] | None:
    """How many tokens end with each piece of the text; None if some token belongs to two pieces.

    `lengths` are the pieces' characters. A token covers also what lies between it and the one before, as some
    tokenizers leave spaces out of their offsets. Tokens that stand before or behind the text belong to the first piece
    or to none.
    """
    end = end_of_text(encoding)
    seams = list(accumulate(lengths))
    quick = [_cut_at(encoding, seam) for seam in seams[:-1]]
    if all(quick) and encoding.char_to_token(seams[-1] - 1) == end - 1:
        return [*map(int, filter(None, quick)), end]
    offsets = encoding.offsets[:end]
    ends = list(accumulate((stop for _, stop in offsets), max))
    cuts = []
    for seam in seams:
        cut = bisect_right(ends, seam)
        # What a normalizer puts before a text is said to stand where the next token begins: both can end at a seam.
        is_across = cut < end and offsets[cut][0] < seam
        if is_across or (seam and (cut == 0 or ends[cut - 1] != seam)):
            return None
        cuts.append(cut)
    return cuts if cuts[-1] == end else None


def _cut_at(encoding: tokenizers.Encoding, seam: int) -> int | None:
    """How many tokens end with a character, where the next one begins another token; else None."""
    last = encoding.char_to_token(seam - 1) if seam else None
    following = encoding.char_to_token(seam)
    if last is None or following is None or following != last + 1:
        return None
    place = encoding.token_to_chars(following)
    return following if place is not None and place[0] == seam else None


def end_of_text(encoding: tokenizers.Encoding) -> int:
    """The number of tokens up to the end of the text, without what the tokenizer puts behind it."""
    mask = encoding.special_tokens_mask
    end = len(mask)
    while end and mask[end - 1]:
        end -= 1
    return end
