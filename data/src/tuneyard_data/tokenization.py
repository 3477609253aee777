# SPDX-License-Identifier: Apache-2.0
"""Text to token ids and back, by the model's own tokenizer as transformers loads it; without PyTorch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from tuneyard_data.chat_template import ChatTemplate
from tuneyard_data.examples import Example
from tuneyard_data.known_words import KnownWords, looks_around
from tuneyard_data.pretrained import load_tokenizer
from tuneyard_data.refused import DataRefused
from tuneyard_data.seams import TokenBytes, cuts_by_offsets, end_of_text

_ANCHORS = ("\n", "a", ".", "0", "é")
"""Texts before which a completion may be encoded, so that a tokenizer does not take it for the beginning of a text."""
_SHORT = 200
"""Characters of the end of a prompt that is kept with its ids."""
_KNOWN_ENDS = 4096
_IDS = 2**31
"""Ids are below; the library takes no larger number."""


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

    ids: np.ndarray
    """int32 [tokens]: of the whole text."""
    begin: int
    """Tokens that the tokenizer puts before the text."""
    end: int
    """Tokens up to the end of the text."""
    prompt: list[int]
    """The ids of the prompt from `start` on."""
    start: int
    """A character of the prompt."""
    whole: tokenizers.Encoding | None
    """The whole text with its offsets; None where they were not asked for."""

    @property
    def ids_of_text(self) -> np.ndarray:
        """The ids without those that the tokenizer puts around the text."""
        is_whole = self.begin == 0 and self.end == len(self.ids)
        return self.ids if is_whole else self.ids[self.begin : self.end]


class TextTokenizer:
    """The tokenizer of a model folder."""

    def __init__(self, folder: Path) -> None:
        """Reads the tokenizer's files of a model folder, as AutoTokenizer does.

        Raises:
            DataRefused: if they can't be used or name no token that ends an answer.
        """
        names = ("tokenizer_config.json", "generation_config.json", "config.json")
        _, *configs = (_json_or_empty(folder / name) for name in names)
        self._folder = folder
        self.loaded = load_tokenizer(folder)
        self._backend: tokenizers.Tokenizer = self.loaded.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._added_tokens = [str(token) for token in self.loaded.added_tokens_encoder]
        self.stop_ids = self._find_stop_ids(configs)
        if not self.stop_ids:
            raise DataRefused(
                f"{folder}: no token ends an answer: neither tokenizer_config.json (eos_token) nor"
                " generation_config.json nor config.json (eos_token_id) names one that the tokenizer has"
            )
        self._splitting = {
            token.content: number
            for number, token in self._backend.get_added_tokens_decoder().items()
            if number in self.stop_ids and token.special and not looks_around(token)
        }
        self._token_bytes = TokenBytes.of(self._backend)
        self._words = KnownWords.of(self._backend, self._encode_words)
        self._known_ends: dict[str, list[int]] = {}
        self.end_id = self.stop_ids[0]
        """Token that is appended to the learned text, if the text does not end with a stop id itself."""

    def _find_stop_ids(self, configs: Sequence[dict[str, Any]]) -> tuple[int, ...]:
        """Every id that ends an answer, the tokenizer's own first: a serving program stops at each of them."""
        found = [self.loaded.eos_token_id]
        for config in configs:
            ids = config.get("eos_token_id")
            found += ids if isinstance(ids, list) else [ids]
        return tuple(dict.fromkeys(filter(self._is_token, found)))

    def _is_token(self, value: object) -> bool:
        """Whether a value of a configuration is the id of a token; some name ids that no token has."""
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _IDS:
            return False
        return self._backend.id_to_token(value) is not None

    @property
    def largest_id(self) -> int:
        """The highest token id that can come out."""
        return max(self._backend.get_vocab(with_added_tokens=True).values())

    def chat_template(self) -> ChatTemplate | None:
        """The template that turns messages into text, if the model has one."""
        if not self.loaded.chat_template:
            return None
        stops = [self._backend.id_to_token(stop) for stop in self.stop_ids]
        return ChatTemplate(self.loaded, tuple(stop for stop in stops if stop))

    def prompt_ids(self, text: str, *, has_special_tokens: bool) -> list[int]:
        """The ids that a serving program makes of a prompt, which the model continues."""
        encoding = self._backend.encode(text, add_special_tokens=not has_special_tokens)
        return list(encoding.ids[: end_of_text(encoding)])

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
        """The first half of `tokenize`."""
        has_offsets = self._token_bytes is None or not self._token_bytes.is_useful
        texts = [each.text for each in examples]
        by_words = {} if has_offsets else self._ids_by_words(examples, texts)
        others = [i for i in range(len(examples)) if i not in by_words]
        rest = [examples[i] for i in others], [texts[i] for i in others]
        encoded = self._encode_all(*rest, has_offsets=has_offsets)
        wholes = by_words | dict(zip(others, encoded, strict=True))
        starts = [self._last_seam(each) for each in examples]
        pairs = zip(examples, starts, strict=True)
        prompts = [each.pieces[0].text[start:] if len(each.pieces) > 1 else "" for each, start in pairs]
        ends = self._prompt_ends(examples, prompts, starts)
        parts = zip(examples, map(wholes.__getitem__, range(len(examples))), ends, starts, strict=True)
        return [_encoded(*each, has_offsets=has_offsets) for each in parts]

    def _ids_by_words(self, examples: Sequence[Example], texts: Sequence[str]) -> dict[int, np.ndarray]:
        """The ids of the texts that need no special tokens around them, where the tokenizer's words are known."""
        if self._words is None:
            return {}
        places = [i for i, each in enumerate(examples) if each.has_special_tokens]
        return dict(zip(places, self._words.ids_of([texts[i] for i in places]), strict=True))

    def _encode_words(self, words: list[str]) -> list[tokenizers.Encoding]:
        return self._encode_texts(words, has_offsets=False, add_special_tokens=False)

    def records_of(
        self, examples: Sequence[Example], encoded: Sequence["Encoded"], *, learn_all: bool, limit: int
    ) -> list[TokenizedRecord]:
        """The second half of `tokenize`."""
        if not examples:
            return []
        seams = self._seams(examples, encoded)
        divided = [self._divided(*each) for each in zip(examples, encoded, seams, strict=True)]
        counts = [count for _, counts in divided for count in counts]
        flags = [learn_all or piece.is_learned for each in examples for piece in each.pieces]
        tokens = np.concatenate([ids for ids, _ in divided])
        learned = np.repeat(np.asarray(flags, dtype=bool), counts)
        records, start, piece = [], 0, 0
        for ids, counts in divided:
            end = start + min(len(ids), limit)
            first = _first_learned(counts, flags[piece : piece + len(counts)])
            records.append(TokenizedRecord(tokens[start:end], learned[start:end], len(ids), first))
            start, piece = start + len(ids), piece + len(counts)
        return records

    def _encode_all(
        self, examples: Sequence[Example], texts: Sequence[str], *, has_offsets: bool
    ) -> list[tokenizers.Encoding]:
        """The encodings of one text for each example, with the special tokens that the text lacks."""
        found: dict[int, tokenizers.Encoding] = {}
        for has_special_tokens in (False, True):
            places = [i for i, each in enumerate(examples) if each.has_special_tokens is has_special_tokens]
            encoded = self._encode_texts(
                [texts[i] for i in places],
                has_offsets=has_offsets,
                add_special_tokens=not has_special_tokens,
            )
            found.update(zip(places, encoded, strict=True))
        return [found[i] for i in range(len(texts))]

    def _encode_texts(
        self, texts: list[str], *, has_offsets: bool, add_special_tokens: bool
    ) -> list[tokenizers.Encoding]:
        encode = self._backend.encode_batch if has_offsets else self._backend.encode_batch_fast
        try:
            return encode(texts, add_special_tokens=add_special_tokens)
        except Exception as error:  # noqa: BLE001  the library raises bare Exception
            raise DataRefused(
                f"{self._folder}: the tokenizer can't take the text of a record: {error}; try a revision of the model whose"
                " tokenizer.json is whole"
            ) from None

    def _prompt_ends(
        self, examples: Sequence[Example], prompts: Sequence[str], starts: Sequence[int]
    ) -> list[list[int]]:
        """The ids of the prompts from `starts` on; what chat templates write behind a turn is the same in most."""
        known = {
            text for text, start in zip(prompts, starts, strict=True) if start and text in self._known_ends
        }
        others = [i for i, text in enumerate(prompts) if text not in known]
        encoded = self._encode_all(
            [examples[i] for i in others], [prompts[i] for i in others], has_offsets=False
        )
        found = {i: each.ids[: end_of_text(each)] for i, each in zip(others, encoded, strict=True)}
        if len(self._known_ends) > _KNOWN_ENDS:
            self._known_ends.clear()
        ends = [found[i] if i in found else self._known_ends[text] for i, text in enumerate(prompts)]
        self._known_ends.update(
            (prompts[i], found[i]) for i in others if starts[i] and len(prompts[i]) < _SHORT
        )
        return ends

    def _last_seam(self, example: Example) -> int:
        """Where the last token begins in the prompt that splits it in any text; 0 if there is none.

        What follows such a token is tokenised by itself, so that only this part has to be compared with the whole text.
        """
        if not example.has_special_tokens or len(example.pieces) == 1:
            return 0
        return max(0, *(example.pieces[0].text.rfind(text) for text in self._splitting), 0)

    def _divided(
        self, example: Example, encoded: "Encoded", seams: tuple[int | None, list[int] | None]
    ) -> tuple[np.ndarray, list[int]]:
        """The ids of an example, with one that ends it, and how many of them are of each piece.

        They are those of the whole text, if tokens end where pieces do. Otherwise a token would belong to two pieces, or the
        prompt would not be what a serving program makes of it: then the prompt stands by itself, and each further piece
        continues it.
        """
        start, cuts = seams
        if cuts is None or not self._begins_alike(example, encoded, start, cuts[0]):
            cuts = self._cuts_by_beginnings(example, encoded)
        if cuts is not None:
            ids = encoded.ids[: cuts[-1]]
            counts = [end - begin for begin, end in zip([0, *cuts], cuts, strict=False)]
        else:
            first = self.prompt_ids(example.pieces[0].text, has_special_tokens=example.has_special_tokens)
            rest = [self._continuation(before.text, piece.text) for before, piece in pairwise(example.pieces)]
            ids = np.asarray([*chain(first, *rest)], dtype=np.int32)
            counts = [len(part) for part in (first, *rest)]
        if not len(ids) or int(ids[-1]) not in self.stop_ids:
            ids = np.append(ids, np.int32(self.end_id))
            counts[-1] += 1
        return ids, counts

    def _seams(
        self, examples: Sequence[Example], encoded: Sequence["Encoded"]
    ) -> list[tuple[int | None, list[int] | None]]:
        """The token of each example that begins at `start`, and how many tokens end with each piece; None where a token lies across."""
        found: list[tuple[int | None, list[int] | None] | None] = [None] * len(examples)
        quick = [i for i, each in enumerate(encoded) if each.whole is None]
        if quick and self._token_bytes is not None:
            texts = [_texts_between_seams(examples[i], encoded[i].start) for i in quick]
            cuts = self._token_bytes.cuts([encoded[i].ids_of_text for i in quick], texts)
            for i, cut in zip(quick, cuts, strict=True):
                if cut is not None:
                    start, *ends = (each if each is None else encoded[i].begin + each for each in cut)
                    found[i] = start, None if None in ends else [each for each in ends if each is not None]
        return [
            self._seams_by_offsets(examples[i], encoded[i]) if each is None else each
            for i, each in enumerate(found)
        ]

    def _seams_by_offsets(self, example: Example, encoded: "Encoded") -> tuple[int | None, list[int] | None]:
        if len(example.pieces) == 1:
            return 0, [encoded.end]
        whole = encoded.whole or self._backend.encode(
            example.text, add_special_tokens=not example.has_special_tokens
        )
        lengths = [len(piece.text) for piece in example.pieces]
        return whole.char_to_token(encoded.start), cuts_by_offsets(whole, lengths)

    def _cuts_by_beginnings(self, example: Example, encoded: "Encoded") -> list[int] | None:
        """How many tokens end with each piece, where the text up to there has the tokens that the whole text begins with.

        So it is at a token that takes the white space behind it, as some special tokens do, though a piece ends before it.
        """
        cuts, text = [], ""
        for piece in example.pieces[:-1]:
            text += piece.text
            ids = self.prompt_ids(text, has_special_tokens=example.has_special_tokens)
            if encoded.ids[: len(ids)].tolist() != ids:
                return None
            cuts.append(len(ids))
        return [*cuts, encoded.end]

    def _begins_alike(self, example: Example, encoded: "Encoded", start: int | None, cut: int) -> bool:
        """Whether the whole text begins with the tokens of the prompt alone, which are `cut`."""
        if len(example.pieces) == 1:
            return True
        ids, prompt = encoded.ids, encoded.prompt
        if encoded.start == 0:
            return bool(ids[:cut].tolist() == prompt)
        if start is not None and prompt[0] in self._splitting.values() and ids[start] == prompt[0]:
            return bool(ids[start:cut].tolist() == prompt)
        whole_prompt = self.prompt_ids(example.pieces[0].text, has_special_tokens=True)
        return bool(ids[:cut].tolist() == whole_prompt)

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


def _encoded(
    example: Example,
    whole: tokenizers.Encoding | np.ndarray,
    prompt: list[int],
    start: int,
    *,
    has_offsets: bool,
) -> Encoded:
    if isinstance(whole, np.ndarray):
        return Encoded(whole, 0, len(whole), prompt, start, None)
    ids = np.asarray(whole.ids, dtype=np.int32)
    begin, end = 0, len(ids)
    if not example.has_special_tokens:
        mask, end = whole.special_tokens_mask, end_of_text(whole)
        begin = next((at for at in range(end) if not mask[at]), end)
    return Encoded(ids, begin, end, prompt, start, whole if has_offsets else None)


def _texts_between_seams(example: Example, start: int) -> list[str]:
    prompt, *rest = (piece.text for piece in example.pieces)
    return [prompt[:start], prompt[start:], *rest]


def _first_learned(counts: Sequence[int], flags: Sequence[bool]) -> int:
    """The first token that is predicted and counts in the loss: nothing precedes the first of all, so it is never predicted."""
    begin = 0
    for count, is_learned in zip(counts, flags, strict=True):
        if is_learned and begin + count > max(begin, 1):
            return max(begin, 1)
        begin += count
    return begin


def _json_or_empty(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataRefused(f"{path}: malformed JSON: {error}") from None
    return value if isinstance(value, dict) else {}
