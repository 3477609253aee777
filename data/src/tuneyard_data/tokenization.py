# SPDX-License-Identifier: Apache-2.0
"""Text to token ids and back, by the model's own tokenizer as transformers loads it; without PyTorch."""

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from tuneyard_data.chat_template import ChatTemplate
from tuneyard_data.examples import Example
from tuneyard_data.pretrained import load_tokenizer
from tuneyard_data.refused import DataRefused

_ANCHORS = ("\n", "a", ".", "0", "é")
"""Texts before which a completion may be encoded, so that a tokenizer does not take it for the beginning of a text."""


@dataclass(frozen=True)
class TokenizedRecord:
    """One record in tokens."""

    tokens: np.ndarray
    """int32 [length]."""
    learned: np.ndarray
    """bool [length]: whether a token counts in the loss."""
    full_length: int
    """Number of tokens before truncation."""
    first_learned: int
    """Place of the first token that is predicted and counts in the loss, from 0; `full_length` if there is none."""

    @property
    def is_cut(self) -> bool:
        """Whether it was longer than allowed."""
        return self.full_length > len(self.tokens)


@dataclass(frozen=True)
class Encoded:
    """What the tokenizer's own code makes of an example."""

    whole: tokenizers.Encoding
    prompt: tokenizers.Encoding
    """Of the prompt from `start` on."""
    start: int
    """A character of the prompt."""


class TextTokenizer:
    """The tokenizer of a model folder."""

    def __init__(self, folder: Path) -> None:
        """Reads the tokenizer's files of a model folder, as AutoTokenizer does.

        Raises:
            DataRefused: if they can't be used or name no token that ends an answer.
        """
        names = ("tokenizer_config.json", "generation_config.json", "config.json")
        _, *configs = (_json_or_empty(folder / name) for name in names)
        self._loaded = load_tokenizer(folder)
        self._backend: tokenizers.Tokenizer = self._loaded.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._added_tokens = [str(token) for token in self._loaded.added_tokens_encoder]
        self.stop_ids = self._find_stop_ids(configs)
        if not self.stop_ids:
            raise DataRefused(
                f"{folder}: no token ends an answer: neither tokenizer_config.json (eos_token) nor"
                " generation_config.json nor config.json (eos_token_id) names one that the tokenizer has"
            )
        self._splitting = {
            token.content: number
            for number, token in self._backend.get_added_tokens_decoder().items()
            if number in self.stop_ids and token.special and not _looks_around(token)
        }
        self.end_id = self.stop_ids[0]
        """Token that is appended to the learned text, if the text does not end with a stop id itself."""

    def _find_stop_ids(self, configs: Sequence[dict[str, Any]]) -> tuple[int, ...]:
        """Every id that ends an answer, the tokenizer's own first: a serving program stops at each of them."""
        found = [self._loaded.eos_token_id]
        for config in configs:
            ids = config.get("eos_token_id")
            found += ids if isinstance(ids, list) else [ids]
        size = self._backend.get_vocab_size(with_added_tokens=True)
        return tuple(dict.fromkeys(token for token in found if isinstance(token, int) and token < size))

    @property
    def largest_id(self) -> int:
        """The highest token id that can come out."""
        return max(self._backend.get_vocab(with_added_tokens=True).values())

    def chat_template(self) -> ChatTemplate | None:
        """The template that turns messages into text, if the model has one."""
        if not self._loaded.chat_template:
            return None
        stops = [self._backend.id_to_token(stop) for stop in self.stop_ids]
        return ChatTemplate(self._loaded, tuple(stop for stop in stops if stop))

    def prompt_ids(self, text: str, *, has_special_tokens: bool) -> list[int]:
        """The ids that a serving program makes of a prompt, which the model continues."""
        encoding = self._backend.encode(text, add_special_tokens=not has_special_tokens)
        return list(encoding.ids[: _end_of_text(encoding)])

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens."""
        return str(self._backend.decode(list(ids), skip_special_tokens=True))

    def decode_all(self, ids: Sequence[int]) -> str:
        """Text with special tokens, for people who want to see them."""
        return str(self._backend.decode(list(ids), skip_special_tokens=False))

    def texts_of(self, ids: Sequence[int]) -> list[str]:
        """The text that each token adds, special tokens included.

        Tokens that hold a part of a character add nothing; the one that completes it adds the whole character.
        """
        texts, start, done = [], 0, 0
        for end in range(1, len(ids) + 1):
            before, upto = self.decode_all(ids[start:done]), self.decode_all(ids[start:end])
            if upto.endswith("\ufffd") and end < len(ids):
                texts.append("")
                continue
            texts.append(upto[len(before) :])
            # Decoded behind the token before: by itself a token may lose the space that it begins with.
            start, done = done, end
        return texts

    def tokenize(self, examples: Sequence[Example], *, learn_all: bool, limit: int) -> list[TokenizedRecord]:
        """Every example in at most `limit` tokens, cut at the end; as one batch, which uses all cores."""
        return self.records_of(examples, self.encode(examples), learn_all=learn_all, limit=limit)

    def encode(self, examples: Sequence[Example]) -> list["Encoded"]:
        """The first half of `tokenize`, without Python's lock: another thread can work meanwhile."""
        wholes = self._encode_all(examples, [each.text for each in examples])
        starts = [self._last_seam(each) for each in examples]
        prompts = self._encode_all(
            examples,
            [
                each.pieces[0].text[start:] if len(each.pieces) > 1 else ""
                for each, start in zip(examples, starts, strict=True)
            ],
        )
        return list(map(Encoded, wholes, prompts, starts))

    def records_of(
        self, examples: Sequence[Example], encoded: Sequence["Encoded"], *, learn_all: bool, limit: int
    ) -> list[TokenizedRecord]:
        """The second half of `tokenize`."""
        return [
            self._record(*each, learn_all=learn_all, limit=limit)
            for each in zip(examples, encoded, strict=True)
        ]

    def _encode_all(self, examples: Sequence[Example], texts: Sequence[str]) -> list[tokenizers.Encoding]:
        """The encodings of one text for each example, with the special tokens that the text lacks."""
        found: dict[int, tokenizers.Encoding] = {}
        for has_special_tokens in (False, True):
            places = [i for i, each in enumerate(examples) if each.has_special_tokens is has_special_tokens]
            chosen = [texts[i] for i in places]
            encoded = self._backend.encode_batch(chosen, add_special_tokens=not has_special_tokens)
            found.update(zip(places, encoded, strict=True))
        return [found[i] for i in range(len(texts))]

    def _last_seam(self, example: Example) -> int:
        """Where the last token begins in the prompt that splits it in any text; 0 if there is none.

        What follows such a token is tokenised by itself, so that only this part has to be compared with the whole text.
        """
        if not example.has_special_tokens or len(example.pieces) == 1:
            return 0
        return max(0, *(example.pieces[0].text.rfind(text) for text in self._splitting), 0)

    def _record(
        self, example: Example, encoded: "Encoded", *, learn_all: bool, limit: int
    ) -> TokenizedRecord:
        pieces = self._ids_of_pieces(example, encoded)
        tokens = pieces[0] if len(pieces) == 1 else [token for ids in pieces for token in ids]
        flags = [learn_all or piece.is_learned for piece in example.pieces]
        counts = [len(ids) for ids in pieces]
        if not tokens or tokens[-1] not in self.stop_ids:
            tokens = [*tokens, self.end_id]
            counts[-1] += 1
        learned = np.repeat(flags, counts)
        # Nothing precedes the first token, so it is never predicted.
        predicted = learned[1:]
        first = 1 + int(predicted.argmax()) if predicted.any() else len(tokens)
        return TokenizedRecord(
            np.asarray(tokens[:limit], dtype=np.int32), learned[:limit], len(tokens), first
        )

    def _ids_of_pieces(self, example: Example, encoded: "Encoded") -> list[Sequence[int]]:
        """The ids of each piece: those of the whole text, if tokens end where pieces do.

        Otherwise a token would belong to two pieces, or the prompt would not be what a serving program makes of it:
        then the prompt stands by itself, and each further piece continues it.
        """
        whole = encoded.whole
        if len(example.pieces) == 1:
            return [whole.ids[: _end_of_text(whole)]]
        cuts = _cuts(whole, [len(piece.text) for piece in example.pieces])
        if cuts is not None:
            ids = whole.ids
            if self._begins_alike(example, encoded, ids, cuts[0]):
                return [ids[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]
        first = self.prompt_ids(example.pieces[0].text, has_special_tokens=example.has_special_tokens)
        rest = [self._continuation(before.text, piece.text) for before, piece in pairwise(example.pieces)]
        return [first, *rest]

    def _begins_alike(self, example: Example, encoded: "Encoded", ids: list[int], cut: int) -> bool:
        """Whether the whole text begins with the tokens of the prompt alone, which are `cut`."""
        prompt = encoded.prompt.ids[: _end_of_text(encoded.prompt)]
        if encoded.start == 0:
            return bool(ids[:cut] == prompt)
        at = encoded.whole.char_to_token(encoded.start)
        if at is not None and prompt[0] in self._splitting.values() and ids[at] == prompt[0]:
            return bool(ids[at:cut] == prompt)
        return ids[:cut] == self.prompt_ids(example.pieces[0].text, has_special_tokens=True)

    def _continuation(self, before: str, text: str) -> list[int]:
        """The ids of a text that follows another.

        Some tokenizers put a space before a text that begins a sequence, and some behind each special token.
        """
        special = [token for token in self._added_tokens if before.endswith(token)]
        for anchor in (*special, *_ANCHORS):
            alone = self._backend.encode(anchor, add_special_tokens=False).ids
            both = self._backend.encode(anchor + text, add_special_tokens=False).ids
            if both[: len(alone)] == alone:
                return list(both[len(alone) :])
        return list(self._backend.encode(text, add_special_tokens=False).ids)


def _cuts(encoding: tokenizers.Encoding, lengths: Sequence[int]) -> list[int] | None:
    """How many tokens end with each piece of the text; None if some token belongs to two pieces.

    `lengths` are the pieces' characters. A token covers also what lies between it and the one before, as some
    tokenizers leave spaces out of their offsets. Tokens that stand before or behind the text belong to the first piece
    or to none.
    """
    end = _end_of_text(encoding)
    seams = list(accumulate(lengths))
    quick = [_cut_at(encoding, seam) for seam in seams[:-1]]
    if all(quick) and encoding.char_to_token(seams[-1] - 1) == end - 1:
        return [*map(int, filter(None, quick)), end]
    ends = list(accumulate((stop for _, stop in encoding.offsets[:end]), max))
    cuts = []
    for seam in seams:
        cut = bisect_right(ends, seam)
        if seam and (cut == 0 or ends[cut - 1] != seam):
            return None
        cuts.append(cut)
    return cuts if cuts[-1] == end else None


def _cut_at(encoding: tokenizers.Encoding, seam: int) -> int | None:
    """How many tokens end with a character, where the next one begins another token; else None."""
    last = encoding.char_to_token(seam - 1) if seam else None
    following = encoding.char_to_token(seam)
    return following if last is not None and following == last + 1 else None


def _looks_around(token: tokenizers.AddedToken) -> bool:
    """Whether a token takes what stands beside it into account, or the text is changed before it is looked for."""
    return bool(token.lstrip or token.rstrip or token.single_word or token.normalized)


def _end_of_text(encoding: tokenizers.Encoding) -> int:
    """The number of tokens up to the end of the text, without what the tokenizer puts behind it."""
    mask = encoding.special_tokens_mask
    end = len(mask)
    while end and mask[end - 1]:
        end -= 1
    return end


def _json_or_empty(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataRefused(f"{path}: malformed JSON: {error}") from None
    return value if isinstance(value, dict) else {}
