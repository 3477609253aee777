# SPDX-License-Identifier: Apache-2.0
"""A tiny model, an adapter that has moved and some preferences, the same for this project's trainer and for TRL."""

import json
from pathlib import Path
from typing import Any

BETA = 0.3
PAIRS = [
    {"prompt": "Say a colour:", "chosen": " red", "rejected": " seventeen"},
    {"prompt": "Two and two is", "chosen": " four, as everybody knows", "rejected": " five"},
    {"prompt": "A", "chosen": "nswer", "rejected": "n ox"},
]
CHATS = [
    {
        "prompt": [{"role": "user", "content": "Say a colour"}],
        "chosen": [{"role": "assistant", "content": "red"}],
        "rejected": [{"role": "assistant", "content": "seventeen"}],
    },
    {
        "chosen": [
            {"role": "system", "content": "Be short"},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "Two and two?"},
            {"role": "assistant", "content": "four"},
        ],
        "rejected": [
            {"role": "system", "content": "Be short"},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "Two and two?"},
            {"role": "assistant", "content": "It is four, as everybody knows"},
        ],
    },
]
_TEMPLATE = (
    "{{ '<s>' }}{% for message in messages %}{{ message.role + ': ' + message.content }}"
    "{% if message.role == 'assistant' %}{{ '</s>' }}{% else %}{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def write_base(folder: Path) -> Path:
    """Model and tokenizer as files: one token for each byte, and a chat template."""
    import tokenizers
    import torch
    import transformers

    torch.manual_seed(0)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.2,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    own = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "chat_template": _TEMPLATE}
    own["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    return folder


def build_base(folder: Path) -> Any:
    """The model in float64: in float32 two kinds of CPU, which sum in other orders, differed by 1.1e-5 in a loss."""
    import torch
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)


def build_config() -> Any:
    """PEFT's configuration of the adapter."""
    import peft

    return peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")


def move(model: Any) -> None:
    """Gives the adapter weights that are not those of the start, so that it differs from its reference."""
    import torch

    draw = torch.Generator().manual_seed(2)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=draw)


def gradients_of(model: Any) -> dict[str, float]:
    """The norm of each adapter weight's gradient, by the last parts of its name."""
    return {
        name.removeprefix("base_model.model.model.layers."): float(parameter.grad.norm())
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
