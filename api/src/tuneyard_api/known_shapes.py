# SPDX-License-Identifier: Apache-2.0
"""Sizes of models that people begin with, for a plan made where neither their hub nor their files can be read.

They are from each model's config.json. Whoever uses them says so: the files of the model itself are always preferred.
"""

from collections.abc import Mapping
from typing import Any


def _llama(
    *, hidden: int, inner: int, layers: int, heads: int, keys: int, words: int, **more: Any
) -> Mapping[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": words,
        "max_position_embeddings": 131_072,
        **more,
    }


_TIED = {"tie_word_embeddings": True}
_70B = _llama(hidden=8192, inner=28672, layers=80, heads=64, keys=8, words=128_256)

KNOWN: Mapping[str, Mapping[str, Any]] = {
    "llama-3.1-8b-instruct": _llama(hidden=4096, inner=14336, layers=32, heads=32, keys=8, words=128_256),
    "llama-3.1-70b-instruct": _70B,
    "llama-3.1-405b-instruct": _llama(
        hidden=16384, inner=53248, layers=126, heads=128, keys=8, words=128_256
    ),
    "llama-3.2-1b-instruct": _llama(
        hidden=2048, inner=8192, layers=16, heads=32, keys=8, words=128_256, head_dim=64, **_TIED
    ),
    "llama-3.2-3b-instruct": _llama(
        hidden=3072, inner=8192, layers=28, heads=24, keys=8, words=128_256, head_dim=128, **_TIED
    ),
    "llama-3.3-70b-instruct": _70B,
    "mistral-7b-instruct-v0.3": _llama(
        hidden=4096,
        inner=14336,
        layers=32,
        heads=32,
        keys=8,
        words=32_768,
        model_type="mistral",
        max_position_embeddings=32_768,
    ),
    "qwen2.5-7b-instruct": _llama(
        hidden=3584,
        inner=18944,
        layers=28,
        heads=28,
        keys=4,
        words=152_064,
        model_type="qwen2",
        max_position_embeddings=32_768,
    ),
    "smollm2-135m-instruct": _llama(
        hidden=576,
        inner=1536,
        layers=30,
        heads=9,
        keys=3,
        words=49_152,
        max_position_embeddings=8192,
        **_TIED,
    ),
}
"""Configurations by the last part of the repository's or folder's name, in lower case."""


def known_config(name: str) -> Mapping[str, Any] | None:
    """The configuration of a model by its repository or path; a base model counts as the one that answers."""
    last = name.rstrip("/").rsplit("/", 1)[-1].lower()
    return KNOWN.get(last) or KNOWN.get(f"{last}-instruct")
