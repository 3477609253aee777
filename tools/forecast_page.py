# SPDX-License-Identifier: Apache-2.0
"""Writes docs/reference/forecast.md: what `tuneyard plan` forecasts beside what was measured; `--check` fails when the page is stale."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from committed import keep
from tuneyard_api.forecast.choice import placed
from tuneyard_api.forecast.duration import seconds_per_step
from tuneyard_api.forecast.gpus import Gpu, gpu_of
from tuneyard_api.forecast.memory import CONTEXT, GIB, memory_of
from tuneyard_api.forecast.work import Work, is_to_be_spread
from tuneyard_api.model_shape import ModelShape, shape_of

_ROOT = Path(__file__).resolve().parents[1]
_RESULTS = _ROOT / "bench" / "results"
_PAGE = _ROOT / "docs/reference/forecast.md"
_SHORT_RECORD = 200
"""Mean tokens of records that are packed in the benches (bench/trainer_memory.py, bench/lora_side_by_side.py)."""
_ROW = re.compile(r"tuneyard-(8b|1b)-(lora|sft)-(long|short)-(\d+)(?:-(fp8))?(?:-batch(\d+))?(?:-x(\d))?$")
_KEPT_GRADIENTS = {
    ("side-by-side-1b-sft-nvidia-h200-x2.json", f"tuneyard-1b-sft-short-4-{rest}")
    for rest in ("x2", "batch32-x2")
}
"""Rows of code that kept the gradients of a step into the next one: what it needs since then was not measured."""
_SHAPES: Mapping[str, dict[str, Any]] = {
    "8b": {
        "hidden": 4096,
        "layers": 32,
        "heads": 32,
        "keys": 8,
        "inner": 14336,
        "words": 128_256,
        "head": 128,
    },
    "1b": {"hidden": 2048, "layers": 18, "heads": 32, "keys": 8, "inner": 8192, "words": 3072, "head": 64},
}
"""Sizes of the models of bench/lora_side_by_side.py."""
_SEQUENCES = {"8b": 4096, "1b": 2048}
_HEAD = """# Forecast beside measurement

`tuneyard plan` and the condition Planned forecast memory and time by one piece of arithmetic
([how to read a plan](../how-to/plan-a-job.md)). Here it is compared with trainings that ran; a test fails when memory
is off by more than 10 %, or speed by more than 25 %.

Memory is the peak that PyTorch allocated; the plan adds {context:g} GiB for CUDA itself. The allocator holds some memory
free besides, mostly 1 to 7 % and up to 60 % with large logits, and gives it back before a training runs out of memory. Speed is that of optimizer steps, without the first one, which compiles.

| GPU | training | memory, GiB: measured | planned | off | tokens/s: measured | planned | off |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
_TAIL = """
Sources: `bench/trainer_memory.py` and `bench/lora_side_by_side.py`, whose files lie in `bench/results`.

## What follows from what

- **Weights** follow from the headers of the model's safetensors files: 2 bytes a parameter in bfloat16, 0.52 in nf4, 1 in
  int8; embeddings, norms and the output head are never quantised. In fp8 each weight is held by rows and by columns, so
  it takes as much as bfloat16, and saves time alone.
- **Trained parameters** are float32, with a gradient and two moments of AdamW: 16 bytes each. Several
  GPUs hold the model and what is trained each in whole, if that fills at most 90 % of their memory; otherwise FSDP2 spreads
  all over them.
- **Activations** follow from which tensors each path of the trainer keeps for the backward pass; with gradient
  checkpointing from the input of each layer, and one whole layer.
- **Logits**: the plain path holds those of all tokens of a micro batch, in float32; the fast path 4,096 tokens of them.
- **Time** follows from products at the share of the data sheet's speed that was reached, from passes over what a layer
  keeps, from casts or dequantisation of weights, and from the CPU's time to start kernels of small models.

The constants of time were chosen with these rows in view: the table shows how well few numbers describe many trainings, and
promises nothing for a GPU that is not in it. Memory follows from the code, but for two constants of int8.

## What was not measured

Other GPUs than these: their time is taken from NVIDIA's data sheets, and the plan says so. Several GPUs: LoRA on two
H200 that hold the whole model each, and full fine-tuning on two that hold it too; more GPUs are taken to keep as much of
their speed. Mixtures of experts, `dpo`, `ia3`, `pTuning` and DoRA: their
arithmetic is written and not measured. int8 was measured once with gradient checkpointing, and two of its constants
come from that. An H100 was measured for LoRA of 8 billion and of 1.1 billion parameters and for full fine-tuning of
the latter; everything else on an H200.
"""


@dataclass(frozen=True)
class Measured:
    """A training that ran, and its work as the plan sees it."""

    source: str
    """Name of the file in bench/results."""
    called: str
    gpu: Gpu
    work: Work
    peak_gib: float
    tokens_per_second: float

    @property
    def planned_gib(self) -> float:
        """Peak of what PyTorch allocates, in GiB."""
        return memory_of(self.work).allocated / GIB

    @property
    def planned_tokens_per_second(self) -> float:
        """Speed of optimizer steps."""
        tokens = self.work.tokens * self.work.accumulation * self.work.processes
        return tokens / seconds_per_step(self.work, self.gpu)


def measured() -> Iterator[Measured]:
    """Every training of today's trainer whose memory is in bench/results."""
    for path in sorted(_RESULTS.glob("memory-*.json")):
        yield from _of_memory(path.name, json.loads(path.read_text(encoding="utf-8")))
    for path in sorted(_RESULTS.glob("side-by-side-*.json")):
        yield from _of_side_by_side(path.name, json.loads(path.read_text(encoding="utf-8")))


def _of_memory(source: str, result: dict[str, Any]) -> Iterator[Measured]:
    for name, case in result["cases"].items():
        if "peak_allocated_bytes" not in case:
            continue
        model = case["model"]
        shape = _shape(
            hidden=model["hidden_size"],
            layers=model["layers"],
            heads=model["heads"],
            keys=model["kv_heads"],
            inner=model["intermediate"],
            words=model["vocabulary"],
            head=model["head_dim"],
            is_tied=model["tied_embeddings"],
        )
        work = _work(
            shape,
            case["method"],
            case["quantization"],
            micro=case["micro_batch"],
            accumulation=2,
            sequence=case["sequence_length"],
            record=_SHORT_RECORD if case["packing"] else case["sequence_length"],
            rank=case["rank"] or 16,
            has_dropout=case["lora_dropout"] > 0,
            is_recomputing=case["gradient_checkpointing"],
        )
        gib, speed = case["peak_allocated_bytes"] / GIB, case["tokens_per_second"]
        yield Measured(source, name, _gpu(result), work, gib, speed)


def _of_side_by_side(source: str, result: dict[str, Any]) -> Iterator[Measured]:
    for name, row in result["rows"].items():
        found = _ROW.match(name)
        if found is None or (source, name) in _KEPT_GRADIENTS:
            continue
        called, method, data, micro, quantization, batch, gpus = found.groups()
        processes = int(gpus or 1)
        sequence, small = _SEQUENCES[called], called == "1b"
        shape = _shape(**_SHAPES[called], is_tied=small)
        if row["path"] == "plain":
            shape = shape.model_copy(update={"is_known_to_fast_path": False})
        work = _work(
            shape,
            method,
            quantization,
            micro=int(micro),
            accumulation=int(batch or result["globalBatch"]) // int(micro) // processes,
            sequence=sequence,
            record=_SHORT_RECORD if data == "short" else sequence,
            processes=processes,
        )
        speed = row.get("tokensPerSecondAfterFirst") or row["tokensPerSecond"]
        yield Measured(
            source,
            name.removeprefix("tuneyard-"),
            _gpu(result),
            placed(work, _gpu(result)),
            row["peakMemoryGiB"],
            speed,
        )


def _gpu(result: dict[str, Any]) -> Gpu:
    return gpu_of(result["machine"]["gpu"].replace(" ", "-"))


def _shape(
    *, hidden: int, layers: int, heads: int, keys: int, inner: int, words: int, head: int, is_tied: bool
) -> ModelShape:
    return shape_of(
        {
            "model_type": "llama",
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": keys,
            "intermediate_size": inner,
            "vocab_size": words,
            "head_dim": head,
            "tie_word_embeddings": is_tied,
        }
    )


def _work(
    shape: ModelShape,
    method: str,
    quantization: str | None,
    *,
    micro: int,
    accumulation: int,
    sequence: int,
    record: int,
    rank: int = 16,
    processes: int = 1,
    has_dropout: bool = False,
    is_recomputing: bool = False,
) -> Work:
    return Work(
        shape=shape,
        method=method,
        rank=rank,
        targets=None,
        is_dora=False,
        has_dropout=has_dropout,
        quantization=quantization,
        is_bf16=True,
        is_on_gpu=True,
        virtual_tokens=0,
        micro_batch=micro,
        accumulation=accumulation,
        sequence=sequence,
        record=record,
        is_recomputing=is_recomputing,
        processes=processes,
        is_spread=is_to_be_spread(processes, quantization),
    )


def page() -> str:
    """The page, in Markdown."""
    rows = []
    for each in measured():
        memory, speed = each.planned_gib, each.planned_tokens_per_second
        cells = (
            each.gpu.product,
            f"`{each.called}`",
            f"{each.peak_gib:.2f}",
            f"{memory:.2f}",
            f"{memory / each.peak_gib - 1:+.1%}",
            f"{each.tokens_per_second:,.0f}",
            f"{speed:,.0f}",
            f"{speed / each.tokens_per_second - 1:+.0%}",
        )
        rows.append(f"| {' | '.join(cells)} |\n")
    return _HEAD.format(context=CONTEXT / GIB) + "".join(rows) + _TAIL


def main() -> int:
    """Exit code 1 if `--check` finds another page."""
    return keep({_PAGE: page()})


if __name__ == "__main__":
    sys.exit(main())
