# SPDX-License-Identifier: Apache-2.0
"""Llamas of random weights for benches on GPUs: they tell speed and memory, not quality."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_TINY = Path(__file__).resolve().parents[1] / "examples" / "models" / "tiny-llama"

# Llama 3.2 1B but for its vocabulary, which is that of the tokenizer in this repository, and so its embedding.
ONE_BILLION = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 18,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}


def make_model(folder: Path, shape: Mapping[str, Any], device: str = "cpu") -> int:
    """A Llama with the tokenizer of this repository, in bfloat16; returns its parameters.

    `shape` is of LlamaConfig; its vocabulary is the tokenizer's unless it says another. Weights are drawn on `device`.
    """
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415  seconds

    small = json.loads((_TINY / "config.json").read_text())
    tokens = {
        name: small.get(name) for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    }
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(**(tokens | dict(shape)), dtype="bfloat16")).to(torch.bfloat16)
    model.save_pretrained(folder)
    for path in _TINY.glob("*token*"):
        shutil.copy(path, folder)
    return sum(parameter.numel() for parameter in model.parameters())
