# SPDX-License-Identifier: Apache-2.0
"""ROUGE-L of an answer, in words of every script.

The rouge-score library 0.1.2 drops all but a to z and 0 to 9, so that a perfect answer in Chinese, Arabic or Greek scores 0.
With the words of this module, text of those letters and digits scores as with its own.
"""

import re
import unicodedata
from functools import cache
from typing import Any

_ALONE = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
)
"""Letters of scripts that put no space between words: kana, Han, Thai, Lao, Burmese and Khmer. Each counts as a word."""


def rouge_l(reference: str, answer: str) -> float:
    """ROUGE-L F1 (Lin 2004), 0 to 1, without stemming; 0 where one of the two has no word."""
    return float(_scorer().score(reference, answer)["rougeL"].fmeasure)


def words_of(text: str) -> list[str]:
    """Runs of letters and digits with their marks, in lower case."""
    words: list[str] = []
    is_open = False
    for letter in unicodedata.normalize("NFC", text.lower()):
        kind = unicodedata.category(letter)[0]
        if kind not in "LMN":
            is_open = False
        elif words and (kind == "M" or (is_open and not _ALONE.match(letter))):
            words[-1] += letter
        else:
            words.append(letter)
            is_open = not _ALONE.match(letter)
    return words


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415  a second
    from rouge_score.tokenizers import Tokenizer  # noqa: PLC0415

    class Words(Tokenizer):  # type: ignore[misc]
        def tokenize(self, text: str) -> list[str]:
            return words_of(text)

    return RougeScorer(["rougeL"], tokenizer=Words())
