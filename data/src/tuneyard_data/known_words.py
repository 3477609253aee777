# SPDX-License-Identifier: Apache-2.0
"""The token ids of words that were met before: of most texts the tokenizer has to see few words.

A byte-level tokenizer first divides a text into parts and then encodes each by itself. The patterns below never put a
space into one part with what stands before it, unless that is white space too. So a text may be cut before each space
between two characters that are none, and the ids of the whole are those of its words, one behind the other.
"""

import json
import re
from collections.abc import Callable, Sequence
from itertools import repeat
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
"""Memory for words: half of it for those that were met last, and half for those before, which are forgotten first."""
_BYTES_OF_WORD = 200
"""Memory that a word takes beside its characters."""
_MISSING = b"missing"
"""Stands in the place of ids that are not known yet."""

Encode = Callable[[list[str]], Sequence[tokenizers.Encoding]]


class KnownWords:
    """What a tokenizer made of words, without special tokens around the text."""

    def __init__(self, backend: tokenizers.Tokenizer, encode: Encode) -> None:
        """`encode` is the tokenizer's for several texts, without special tokens around them."""
        added = backend.get_added_tokens_decoder()
        self._added = {token.content: _bytes_of([number]) for number, token in added.items()}
        # Where one token begins as another one does, the longer one counts.
        names = sorted(filter(None, self._added), key=len, reverse=True)
        self._at_added = re.compile(f"({'|'.join(map(re.escape, names))})" if names else "((?!))")
        self._encode = encode
        self._ids: dict[str, bytes] = {}
        """The ids of words that were met last: each with the space before it, but those at the beginning of a text or behind an
        added token, whose keys here begin with a space instead."""
        self._former: dict[str, bytes] = {}
        """The ids of words that were met before."""
        self._bytes = 0
        """Memory for `_ids`."""

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
        if self._bytes > _MOST_BYTES // 2:
            self._former, self._ids, self._bytes = self._ids, {}, 0
        contents: list[list[bytes]] = []
        missing: list[tuple[list[bytes], int, str]] = []
        # Text by text: so few words are in use at once that they stay in the processor's own cache.
        for text in texts:
            content: list[bytes] = []
            # Every second part is an added token.
            for number, part in enumerate(self._at_added.split(text)):
                if number % 2:
                    content.append(self._added[part])
                    continue
                words = _BETWEEN_WORDS.split(f" {part}")
                start = len(content)
                content += map(self._ids.get, words, repeat(_MISSING))
                missing += [
                    (content, at, words[at - start])
                    for at in range(start, len(content))
                    if content[at] is _MISSING
                ]
            contents.append(content)
        learned = self._learned({word for _, _, word in missing})
        for content, at, word in missing:
            content[at] = learned[word]
        return [np.frombuffer(b"".join(content), dtype=np.int32) for content in contents]

    def _learned(self, words: set[str]) -> dict[str, bytes]:
        """The ids of keys that are not in `_ids`, where they are from now on."""
        learned = {word: self._former[word] for word in words & self._former.keys()}
        new = [*words.difference(learned)]
        encoded = self._encode([word[1:] if word.startswith(" ") else f" {word}" for word in new])
        learned.update((word, _bytes_of(each.ids)) for word, each in zip(new, encoded, strict=True))
        self._ids.update(learned)
        self._bytes += sum(map(len, learned)) + _BYTES_OF_WORD * len(learned)
        return learned


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
