# SPDX-License-Identifier: Apache-2.0
"""A random Llama and adapters for it, written as files without PyTorch. Its heads are as wide as vLLM needs on CPU: 32."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from safetensors.numpy import save_file

from support.registry.adapters import DESCRIPTION

HIDDEN, LAYERS, HEADS, MLP, VOCABULARY, CONTEXT, RANK = 64, 2, 2, 96, 320, 512, 4
SCALE = 2
"""lora_alpha / r of every adapter that says nothing else."""
ADAPTED = ("q_proj", "v_proj")
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
Weights = dict[str, Any]


def adapted_weight(layer: int, module: str) -> str:
    """The name of a linear layer that adapters change."""
    return f"model.layers.{layer}.self_attn.{module}"


def random_weights(seed: int) -> Weights:
    """All weights of the base model, float32."""
    rng = np.random.default_rng(seed)
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "lm_head.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.self_attn.{m}.weight": (HIDDEN, HIDDEN)
            for m in ("q_proj", "k_proj", "v_proj", "o_proj")
        }
        shapes |= {f"{prefix}.mlp.{m}.weight": (MLP, HIDDEN) for m in ("gate_proj", "up_proj")}
        shapes[f"{prefix}.mlp.down_proj.weight"] = (HIDDEN, MLP)
    weights = {name: rng.normal(0, 0.15, shape).astype("float32") for name, shape in sorted(shapes.items())}
    norms = [
        f"model.layers.{n}.{kind}_layernorm.weight"
        for n in range(LAYERS)
        for kind in ("input", "post_attention")
    ]
    return weights | {name: np.ones(HIDDEN, dtype="float32") for name in [*norms, "model.norm.weight"]}


def write_model(folder: Path, weights: Weights, *, chat_template: str | None = None, end: int = 1) -> Path:
    """A folder that transformers and vLLM load; `end` is the end token."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": end,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _write_tokenizer(folder, chat_template)
    return folder


def _write_tokenizer(folder: Path, chat_template: str | None) -> None:
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    words = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["the quick brown fox jumps over the lazy dog and the sleeping cat"] * 3, words)
    bpe.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    bpe.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    if chat_template:
        names["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def adapter_weights(seed: int, *, rank: int = RANK, modules: tuple[str, ...] = ADAPTED) -> Weights:
    """Both factors of every adapted layer."""
    rng = np.random.default_rng(seed)
    shapes = {"lora_A": (rank, HIDDEN), "lora_B": (HIDDEN, rank)}
    return {
        f"base_model.model.{adapted_weight(layer, module)}.{part}.weight": rng.normal(0, 0.4, shape).astype(
            "float32"
        )
        for layer in range(LAYERS)
        for module in modules
        for part, shape in shapes.items()
    }


def weights_of_another_shape() -> Weights:
    """Factors of one layer that belong to a narrower model."""
    name = f"base_model.model.{adapted_weight(0, ADAPTED[0])}"
    shapes = {"lora_A": (RANK, HIDDEN // 2), "lora_B": (HIDDEN // 2, RANK)}
    return {f"{name}.{part}.weight": np.ones(shape, dtype="float32") for part, shape in shapes.items()}


def write_adapter(
    folder: Path,
    seed: int = 1,
    *,
    rank: int = RANK,
    modules: tuple[str, ...] = ADAPTED,
    weights: Weights | None = None,
    without: tuple[str, ...] = (),
    **config: Any,
) -> Path:
    """Published as the trainer does it: written under a name that begins with a dot, then renamed; replaces what is there.

    `config` is added to adapter_config.json, `without` names keys of it that are left out.
    """
    hidden = folder.with_name(f".{folder.name}")
    hidden.mkdir(parents=True)
    content = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": SCALE * rank,
        "bias": "none",
        "target_modules": list(modules),
        "base_model_name_or_path": "base",
        **config,
    }
    (hidden / "adapter_config.json").write_text(
        json.dumps({key: value for key, value in content.items() if key not in without})
    )
    if weights is None:
        weights = adapter_weights(seed, rank=rank, modules=modules)
    save_file(weights, hidden / "adapter_model.safetensors", metadata={"format": "pt"})
    for name in DESCRIPTION:
        (hidden / name).write_text("no server reads this\n")
    shutil.rmtree(folder, ignore_errors=True)
    return hidden.rename(folder)
