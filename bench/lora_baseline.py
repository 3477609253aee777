# SPDX-License-Identifier: Apache-2.0
"""LoRA as guides write it, with transformers and PEFT, with or without Liger's kernels: one line of JSON.

A process of its own, because Liger changes classes of the whole process. An optimizer step is one micro batch of
rows that are full; the adapter is PEFT's, in float32, under bfloat16 autocast.
"""

import json
import statistics
import time
from pathlib import Path

import click
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

_WARM_UP = 3
"""Steps that are not counted."""


@click.command()
@click.option("--model", type=click.Path(path_type=Path), required=True)
@click.option("--sequence", type=int, required=True)
@click.option("--micro-batch", type=int, required=True)
@click.option("--liger", is_flag=True)
@click.option("--checkpointing", is_flag=True)
@click.option("--steps", type=int, default=8)
def main(  # noqa: PLR0917  click passes keywords
    model: Path, sequence: int, micro_batch: int, liger: bool, checkpointing: bool, steps: int
) -> None:
    """Train on random tokens and print the speed."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, attn_implementation="sdpa").to(
        device
    )
    base.config.use_cache = False
    if liger:
        from liger_kernel.transformers import apply_liger_kernel_to_llama  # noqa: PLC0415  not always there

        apply_liger_kernel_to_llama(
            model=base,
            rope=True,
            swiglu=True,
            rms_norm=True,
            cross_entropy=False,
            fused_linear_cross_entropy=True,
        )
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    tuned = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules=names, task_type="CAUSAL_LM"))
    if checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.enable_input_require_grads()
    tuned.train()
    trained = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, fused=device == "cuda")
    tokens = torch.randint(3, base.config.vocab_size, (micro_batch, sequence), device=device)
    seconds = []
    for _ in range(_WARM_UP + steps):
        began = time.monotonic()
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = tuned(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())  # waits for the device
        seconds.append(time.monotonic() - began)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    speed = micro_batch * sequence / statistics.median(seconds[_WARM_UP:])
    print(json.dumps({"tokensPerSecond": round(speed, 1), "peakMemoryGiB": round(peak / 2**30, 2)}))


if __name__ == "__main__":
    main()
