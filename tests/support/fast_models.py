# SPDX-License-Identifier: Apache-2.0
"""Small models of the families that the fast path knows, and packed records for them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import peft
import torch
import transformers
from tuneyard_data.tokenization import TokenizedRecord
from tuneyard_trainer.model.loading import Device
from tuneyard_trainer.model.record_bounds import take_bounds
from tuneyard_trainer.training.batches import Batch, Frame, collate
from tuneyard_trainer.training.losses import next_tokens
from tuneyard_trainer.workspace.prepared import Split

CPU = Device(torch.device("cpu"), torch.float32, is_autocast=False)

LLAMA = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
WIDE = LLAMA | {"head_dim": 16}
KNOWN = {
    "llama": ("Llama", LLAMA),
    "llama with biases": ("Llama", LLAMA | {"attention_bias": True, "mlp_bias": True}),
    "llama with scaled positions": (
        "Llama",
        LLAMA | {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    ),
    "mistral": ("Mistral", LLAMA | {"sliding_window": None}),
    "mistral with a window that limits nothing": ("Mistral", LLAMA | {"sliding_window": 64}),
    "qwen2": ("Qwen2", LLAMA),
    "qwen3": ("Qwen3", WIDE),
    "phi3": ("Phi3", LLAMA),
    "phi3 that turns half of each head": ("Phi3", LLAMA | {"partial_rotary_factor": 0.5}),
    "gemma": ("Gemma", WIDE),
}

PACKED, APART = [[0, 1, 2], [3, 4], [5]], [[0], [3], [2]]


def batch_of(rows: Sequence[Sequence[int]]) -> Batch:
    """Packed records, a row that is not full, and tokens that are not learned."""
    draw = np.random.default_rng(0)
    lengths = [9, 3, 12, 7, 1, 20]
    records = [
        TokenizedRecord(draw.integers(2, 96, n).astype(np.int32), draw.random(n) < 0.7, n, 1) for n in lengths
    ]
    return collate(Split.of(records, [list(row) for row in rows]), range(len(rows)), CPU, Frame(3, 16, 64))


def base_of(name: str, options: dict[str, Any]) -> Any:
    """A model of random weights, trained as a whole."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**options)
    base = getattr(transformers, f"{name}ForCausalLM")._from_config(config, attn_implementation="sdpa")
    for part, parameter in base.named_parameters():
        if "norm" in part or "bias" in part:
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    take_bounds(base)
    return base


def model_of(
    name: str,
    options: dict[str, Any],
    *,
    dtype: torch.dtype = torch.float32,
    targets: list[str] | None = None,
    **lora: Any,
) -> Any:
    """A PeftModel whose adapters are no longer zero."""
    base = base_of(name, options)
    linear = {name for name, part in base.named_modules() if isinstance(part, torch.nn.Linear)}
    names = targets or sorted({name.rsplit(".", 1)[-1] for name in linear} - {"lm_head", "embed_out"})
    chosen = {"r": 3, "lora_alpha": 8, "target_modules": names, "task_type": "CAUSAL_LM"} | lora
    model = peft.get_peft_model(base.to(dtype), peft.LoraConfig(**chosen))
    for part, parameter in model.named_parameters():
        if "lora_B" in part:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def fast_loss(fast: Any, batch: Batch) -> torch.Tensor:
    return fast.summed_loss(batch.tokens, batch.positions, next_tokens(batch), batch.bounds)


def loss_and_gradient(model: Any, loss: torch.Tensor) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    gradient = [p.grad.flatten() for p in model.parameters() if p.requires_grad]
    return float(loss.detach()), torch.cat(gradient)
