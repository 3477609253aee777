# SPDX-License-Identifier: Apache-2.0
"""The token ids of words that were met before: of most texts the tokenizer has to see few words.

A byte-level tokenizer first divides a text into parts and then encodes each by itself. The patterns below never put a
space into one part with what stands before it, unless that is white space too. So a text may be cut before each space
between two characters that are none, and the ids of the whole are those of its words, one behind the other.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models

from tuneyard_data.seams import state_of

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_OTHERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_O200K = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}"
_PATTERNS = frozenset(
    {
        # Llama 3 (cl100k), Qwen 2, and gpt-oss (o200k).
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_OTHERS}",
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_OTHERS}",
        (
            rf"{_O200K}*{_LOWER}+{_CONTRACTIONS}?|{_O200K}+{_LOWER}*{_CONTRACTIONS}?|\p{{N}}{{1,3}}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
    }
)
"""How tokenizers divide texts, besides the way of GPT-2 that is built into ByteLevel."""
_BETWEEN_WORDS = re.compile(r" (?<=\S )(?=\S)")
_MOST_BYTES = 50_000_000
"""Memory for words; when it is used up, all are forgotten."""
_BYTES_OF_WORD = 200
"""Memory that a word takes beside its characters."""

Encode = Callable[[list[str]], Sequence[tokenizers.Encoding]]


class KnownWords:
    """What a tokenizer made of words, without special tokens around the text."""

    def __init__(self, backend: tokenizers.Tokenizer, encode: Encode) -> None:
        """`encode` is the tokenizer's for several texts, without special tokens around them."""
        added = backend.get_added_tokens_decoder()
        self._encode = encode
        self._added = {token.content: _bytes_of([number]) for number, token in added.items()}
        # Where one token begins as another one does, the longer one counts.
        names = sorted(filter(None, self._added), key=len, reverse=True)
        self._at_added = re.compile(f"({'|'.join(map(re.escape, names))})" if names else "((?!))")
        self._first: dict[str, bytes] = {}
        """The ids of words at the beginning of a text, or behind an added token."""
        self._behind_space: dict[str, bytes] = {}
        """The ids of all others, each with the space before it."""
        self._bytes = 0

    @classmethod
    def of(cls, backend: tokenizers.Tokenizer, encode: Encode) -> "KnownWords | None":
        """None for a tokenizer of which it is not known that words can be encoded by themselves."""
        is_known = (
            isinstance(backend.model, models.BPE)
            and not backend.model.dropout
            and not backend.encode_special_tokens
            and _settings(backend.normalizer).get("type") in {None, "NFC"}
            and _divides_at_spaces(_settings(backend.pre_tokenizer))
            and not any(map(looks_around, backend.get_added_tokens_decoder().values()))
        )
        return cls(backend, encode) if is_known else None

    def ids_of(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 [tokens] of each text."""
        if self._bytes > _MOST_BYTES:
            self._first.clear()
            self._behind_space.clear()
            self._bytes = 0
        # Every second part is an added token.
        divided = [self._at_added.split(text) for text in texts]
        in_words = [[_BETWEEN_WORDS.split(part) for part in parts[::2]] for parts in divided]
        all_parts = [*chain.from_iterable(in_words)]
        self._learn(self._first, "", (words[0] for words in all_parts))
        self._learn(self._behind_space, " ", chain.from_iterable(words[1:] for words in all_parts))
        found = []
        for parts, each in zip(divided, in_words, strict=True):
            content = [self._first[each[0][0]], *map(self._behind_space.__getitem__, each[0][1:])]
            for token, words in zip(parts[1::2], each[1:], strict=True):
                content += (self._added[token], self._first[words[0]])
                content += map(self._behind_space.__getitem__, words[1:])
            found.append(np.frombuffer(b"".join(content), dtype=np.int32))
        return found

    def _learn(self, known: dict[str, bytes], before: str, words: Iterable[str]) -> None:
        missing = [*set(words).difference(known)]
        encoded = self._encode([before + word for word in missing])
        known.update((word, _bytes_of(each.ids)) for word, each in zip(missing, encoded, strict=True))
        self._bytes += sum(map(len, missing)) + _BYTES_OF_WORD * len(missing)


def looks_around(token: tokenizers.AddedToken) -> bool:
    """Whether a token takes what stands beside it into account, or the text is changed before it is looked for."""
    return bool(token.lstrip or token.rstrip or token.single_word or token.normalized)


def _bytes_of(ids: list[int]) -> bytes:
    return np.asarray(ids, dtype=np.int32).tobytes()


def _settings(part: object) -> dict[str, Any]:
    """The settings of a part of a tokenizer."""
    settings: dict[str, Any] = json.loads(state_of(part) or "{}")
    return settings


def _divides_at_spaces(state: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer divides texts before the spaces that this module cuts them at, whatever stands further away."""
    parts = state["pretokenizers"] if state.get("type") == "Sequence" else [state]
    if not parts:
        return False
    if len(parts) > 1 and parts[0]["type"] == "Digits":
        # It divides by single characters, so that each of its parts may be looked at by itself.
        parts = parts[1:]
    last = parts[-1]
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        return False
    if len(parts) == 1:
        return bool(last["use_regex"])
    divides = parts[0]["type"] == "Split" and parts[0]["behavior"] == "Isolated" and not parts[0]["invert"]
    return len(parts) == 2 and divides and parts[0]["pattern"].get("Regex") in _PATTERNS  # noqa: PLR2004
