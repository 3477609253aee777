# SPDX-License-Identifier: Apache-2.0
"""Text to token ids and back, by the model's own fast tokenizer and without transformers or PyTorch.

Each piece of an example is tokenised by itself, so that the ids of a prompt are the very ids that a serving
program sends to the model.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from tuneyard_data.refused import DataRefused
from tuneyard_data.templates import ChatTemplate, Example


@dataclass(frozen=True)
class TokenizedRecord:
    """One record in tokens."""

    tokens: np.ndarray
    """int32 [length]."""
    learned: np.ndarray
    """bool [length]: whether a token counts in the loss."""
    full_length: int
    """Number of tokens before truncation."""

    @property
    def is_cut(self) -> bool:
        """Whether it was longer than allowed."""
        return self.full_length > len(self.tokens)


class TextTokenizer:
    """A tokenizer.json with what tokenizer_config.json says of it."""

    def __init__(self, folder: Path) -> None:
        """Reads the tokenizer's files of a model folder.

        Raises:
            DataRefused: if they can't be used or name no token that ends an answer.
        """
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # noqa: BLE001  the library raises bare Exception
            raise DataRefused(
                f"{folder / 'tokenizer.json'}: this is no readable fast tokenizer: {error}"
            ) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._config = _json_or_empty(folder / "tokenizer_config.json")
        self._folder = folder
        self.stop_ids = self._find_stop_ids()
        if not self.stop_ids:
            raise DataRefused(
                f"{folder}: no token ends an answer: neither tokenizer_config.json (eos_token) nor"
                " generation_config.json nor config.json (eos_token_id) names one that the tokenizer has"
            )
        self.end_id = self.stop_ids[0]
        """Token that is appended to the learned text."""

    def _find_stop_ids(self) -> tuple[int, ...]:
        """Every id that ends an answer, the tokenizer's own first."""
        found = [self._tokenizer.token_to_id(_content(self._config.get("eos_token")) or "")]
        for name in ("generation_config.json", "config.json"):
            ids = _json_or_empty(self._folder / name).get("eos_token_id")
            found += ids if isinstance(ids, list) else [ids]
        size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        return tuple(dict.fromkeys(token for token in found if isinstance(token, int) and token < size))

    @property
    def largest_id(self) -> int:
        """The highest token id that can come out."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def chat_template(self) -> ChatTemplate | None:
        """The template that turns messages into text, if the model has one."""
        file = self._folder / "chat_template.jinja"
        source = file.read_text(encoding="utf-8") if file.is_file() else self._config.get("chat_template")
        if isinstance(source, list):  # Some models that use tools have several named templates.
            source = next((entry["template"] for entry in source if entry.get("name") == "default"), None)
        if not source:
            return None
        special = {
            name: text
            for name, value in self._config.items()
            if name.endswith("_token") and (text := _content(value))
        }
        return ChatTemplate(source, special, self._tokenizer.id_to_token(self.end_id) or "")

    def prompt_ids(self, text: str, *, has_special_tokens: bool) -> list[int]:
        """The ids of a prompt, which the model continues."""
        ids = list(self._tokenizer.encode(text, add_special_tokens=not has_special_tokens).ids)
        # Some tokenizers append an end token to every text, but the model must continue a prompt.
        while ids and not has_special_tokens and ids[-1] in self.stop_ids:
            ids.pop()
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def decode_all(self, ids: Sequence[int]) -> str:
        """Text with special tokens, for people who want to see them."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def tokenize(self, examples: Sequence[Example], *, learn_all: bool, limit: int) -> list[TokenizedRecord]:
        """Every example in at most `limit` tokens, cut at the end; as one batch, which uses all cores."""
        texts = [piece.text for example in examples for piece in example.pieces]
        encodings = iter(self._tokenizer.encode_batch(texts, add_special_tokens=False))
        return [self._record(example, encodings, learn_all=learn_all, limit=limit) for example in examples]

    def _record(self, example: Example, encodings: Any, *, learn_all: bool, limit: int) -> TokenizedRecord:
        tokens: list[int] = []
        learned: list[bool] = []
        for index, piece in enumerate(example.pieces):
            ids = next(encodings).ids
            if index == 0 and not example.has_special_tokens:
                ids = self.prompt_ids(piece.text, has_special_tokens=False)
            tokens += ids
            learned += [learn_all or piece.is_learned] * len(ids)
        if not tokens or tokens[-1] not in self.stop_ids:
            tokens.append(self.end_id)
            learned.append(True)
        return TokenizedRecord(
            np.asarray(tokens[:limit], dtype=np.int32), np.asarray(learned[:limit], dtype=bool), len(tokens)
        )


def _content(token: Any) -> str | None:
    """A special token as text: written plainly or as an object with `content`."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) and text else None


def _json_or_empty(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataRefused(f"{path}: malformed JSON: {error}") from None
    return value if isinstance(value, dict) else {}
