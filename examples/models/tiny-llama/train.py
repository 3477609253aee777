# SPDX-License-Identifier: Apache-2.0
"""Trains the demo's base model from nothing: a small Llama on the standard library's source text.

Tests and demo must work where no model hub can be reached, and a LoRA on random weights learns nothing. So this
script makes a byte-level BPE tokenizer and a Llama-architecture model of a few million parameters from the text of
the data set's training split only, plain next-token loss, on CPU, seeded. It never sees the data set's prompts.

    python train.py [OUT_DIR]      about a quarter of an hour on two cores; default: this folder

Writes config.json, generation_config.json, model.safetensors (bfloat16), tokenizer.json, tokenizer_config.json and
training.json, the numbers that README.md repeats.
"""

import argparse
import importlib.util
import json
import math
import platform
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}"
    "{{ eos_token if message.role == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def load_data_set_builder() -> ModuleType:
    """`examples/docstrings/build.py`: it alone knows which modules may be trained on."""
    spec = importlib.util.spec_from_file_location(
        "docstrings_build", HERE.parent.parent / "docstrings" / "build.py"
    )
    if spec is None or spec.loader is None:
        raise FileNotFoundError("examples/docstrings/build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def build_tokenizer(texts: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: every text can be written and comes back unchanged. A text begins with <s>, as Llama's do."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[BOS, EOS, PAD],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bpe.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, context: int) -> LlamaForCausalLM:
    """Llama 3's shape in small. Heads of 64, so that servers with fused attention kernels load it too."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=3,
            num_key_value_heads=3,
            head_dim=64,
            max_position_embeddings=context,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def pack(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, length: int) -> torch.Tensor:
    """All texts as one stream `<s> text </s> <s> ...`, cut to rows; shape (rows, length), int64."""
    stream: list[int] = []
    for text in texts:
        stream += [*tokenizer(text, verbose=False).input_ids, tokenizer.eos_token_id]
    rows = len(stream) // length
    return torch.tensor(stream[: rows * length]).view(rows, length)


def learning_rate_at(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then cosine down to a tenth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * share)))


def train(
    model: LlamaForCausalLM,
    rows: torch.Tensor,
    *,
    steps: int,
    batch: int,
    peak: float,
    generator: torch.Generator,
) -> float:
    """AdamW on batches drawn without replacement, epoch after epoch; returns the mean loss of the last 50 steps."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=peak,
        betas=(0.9, 0.95),
    )
    order = torch.empty(0, dtype=torch.int64)
    losses: list[float] = []
    start = time.monotonic()
    model.train()
    for step in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(rows), generator=generator)
        chosen, order = order[:batch], order[batch:]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, steps, peak, warmup=min(100, steps // 10 + 1))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=rows[chosen], labels=rows[chosen]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 50 == 0 or step == steps - 1:
            speed = (step + 1) * batch * rows.shape[1] / (time.monotonic() - start)
            print(f"step {step + 1} of {steps}: loss {losses[-1]:.3f}, {speed:,.0f} tokens/s", flush=True)
    return sum(losses[-50:]) / len(losses[-50:])


def parse_arguments() -> argparse.Namespace:
    """The command line; the defaults are what the committed model was trained with."""
    parser = argparse.ArgumentParser(description="Trains the tiny base model of the demo.")
    parser.add_argument(
        "out", nargs="?", type=Path, default=HERE, help="folder for the model (default: here)"
    )
    parser.add_argument("--steps", type=int, default=1600, help="optimizer steps")
    parser.add_argument("--batch", type=int, default=8, help="sequences in one step")
    parser.add_argument("--length", type=int, default=512, help="tokens in one sequence")
    parser.add_argument("--context", type=int, default=1024, help="longest context that config.json allows")
    parser.add_argument("--vocabulary", type=int, default=3072, help="tokens of the tokenizer")
    parser.add_argument("--peak", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=1, help="seeds weights and data order")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    return parser.parse_args()


def main() -> int:
    """Tokenizer, packing, training, files."""
    options = parse_arguments()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    builder = load_data_set_builder()
    texts = list(builder.read_corpus(builder.find_modules()))
    tokenizer = build_tokenizer(texts, options.vocabulary, options.context)
    model = build_model(tokenizer, options.context)
    rows = pack(texts, tokenizer, options.length)
    parameters = model.num_parameters()
    print(
        f"{len(texts)} files, {sum(map(len, texts)):,} characters, {rows.numel():,} tokens, {parameters:,} parameters"
    )
    start = time.monotonic()
    loss = train(
        model,
        rows,
        steps=options.steps,
        batch=options.batch,
        peak=options.peak,
        generator=torch.Generator().manual_seed(options.seed),
    )
    minutes = (time.monotonic() - start) / 60
    model.to(torch.bfloat16).save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    facts = {
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "files": len(texts),
        "characters": sum(map(len, texts)),
        "corpusTokens": rows.numel(),
        "trainedTokens": options.steps * options.batch * options.length,
        "vocabulary": len(tokenizer),
        "parameters": parameters,
        "finalLoss": round(loss, 3),
        "seed": options.seed,
        "steps": options.steps,
        "batch": options.batch,
        "sequenceLength": options.length,
        "peakLearningRate": options.peak,
        "minutes": round(minutes, 1),
    }
    (options.out / "training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
