# SPDX-License-Identifier: Apache-2.0
"""How much memory does a training take, by shape, method and settings? What is measured is the trainer's own loop.

Models have random weights and data is random tokens. The loop runs in this process, without evaluation and checkpoints,
because both take less memory than a step. What the figures mean: docs/how-to/benchmarks.md.
"""

import gc
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import torch
from lora_side_by_side import machine
from random_models import make_model
from tuneyard_api.planner import make_plan
from tuneyard_api.pod_contract import ResolvedJob, Stage
from tuneyard_api.validate import read_job
from tuneyard_api.yaml_io import load
from tuneyard_trainer.local_run import build_local_runtime
from tuneyard_trainer.model.loading import choose_device, load_model
from tuneyard_trainer.model.world import World
from tuneyard_trainer.pod.context import StopRequest
from tuneyard_trainer.pod.progress import Board
from tuneyard_trainer.training.batches import Frame
from tuneyard_trainer.training.loop import Loop
from tuneyard_trainer.training.losses import Losses
from tuneyard_trainer.workspace.prepared import Split, TokenizedRecord

_RESULTS = Path(__file__).resolve().parent / "results"
_SHORT = 200
"""Tokens of a short record, on average."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    head_dim: int
    tied_embeddings: bool

    def config(self) -> dict[str, Any]:
        """The same as transformers calls it."""
        return {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocabulary,
            "head_dim": self.head_dim,
            "tie_word_embeddings": self.tied_embeddings,
            "max_position_embeddings": 8192,
        }


SHAPES = {
    "0.1b": Shape(576, 30, 9, 3, 1536, 49152, 64, tied_embeddings=True),
    "1b": Shape(2048, 16, 32, 8, 8192, 128256, 64, tied_embeddings=True),
    "3b": Shape(3072, 28, 24, 8, 8192, 128256, 128, tied_embeddings=True),
    "7b": Shape(4096, 32, 32, 32, 11008, 32000, 128, tied_embeddings=False),
    "8b": Shape(4096, 32, 32, 8, 14336, 128256, 128, tied_embeddings=False),
    "try": Shape(64, 2, 4, 2, 128, 3072, 16, tied_embeddings=True),
}


@dataclass(frozen=True)
class Case:
    """One training."""

    shape: str
    method: str
    sequence: int
    micro: int
    quantization: str | None = None
    rank: int = 16
    packing: bool = True
    checkpointing: bool = False
    dropout: float = 0.0
    """Dropout of the adapter; above 0 the plain path trains it."""

    @property
    def name(self) -> str:
        """Such as 8b-lora-nf4-4096-1-checkpointing."""
        options = {
            f"r{self.rank}": self.method == "lora" and self.rank != 16,
            "long": not self.packing,
            "checkpointing": self.checkpointing,
            "dropout": self.dropout > 0,
        }
        parts = [self.shape, self.method, self.quantization, str(self.sequence), str(self.micro)]
        return "-".join(filter(None, [*parts, *(name for name, applies in options.items() if applies)]))


_ALL = [
    Case("8b", "lora", 4096, 1, "nf4", checkpointing=True),
    Case("8b", "lora", 4096, 2),
    Case("8b", "lora", 4096, 2, "fp8"),
    Case("7b", "lora", 4096, 2),
    Case("1b", "lora", 2048, 4),
    Case("1b", "sft", 2048, 4),
    Case("0.1b", "lora", 2048, 8),
    Case("0.1b", "sft", 2048, 8),
    Case("8b", "lora", 4096, 4, rank=64, checkpointing=True),
    Case("8b", "lora", 4096, 1, dropout=0.05),
    Case("3b", "lora", 4096, 2, rank=64),
    Case("3b", "sft", 2048, 2, checkpointing=True),
    Case("1b", "sft", 4096, 4, checkpointing=True),
    Case("1b", "lora", 2048, 4, "nf4"),
    Case("8b", "lora", 2048, 1, "int8", checkpointing=True),
    Case("7b", "sft", 2048, 1, checkpointing=True),
]


def job_of(case: Case, runtime: str, steps: int) -> ResolvedJob:
    """The job of a case as the planner resolves it."""
    claim = {"pvc": {"claimName": "none", "path": "none.jsonl"}}
    model = {"pvc": {"claimName": "none", "path": case.shape}}
    document = {
        "apiVersion": "tuneyard.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "case"},
        "spec": {
            "model": model | ({"quantization": case.quantization} if case.quantization else {}),
            "dataset": {"training": claim},
            "publish": {"pvc": {"claimName": "none"}},
            "method": case.method,
            **({"lora": {"rank": case.rank, "dropout": case.dropout}} if case.method == "lora" else {}),
            "runtime": {"name": runtime},
            "training": {
                "maxSteps": steps,
                "learningRate": 1e-5,
                "maxSequenceLength": case.sequence,
                # Gradients are there while a second micro batch is computed.
                "globalBatchSize": 2 * case.micro,
                "microBatchSize": case.micro,
                "gradientCheckpointing": case.checkpointing,
                "packing": case.packing,
            },
            "checkpoint": {"everySteps": steps},
        },
    }
    plan = make_plan(read_job(load(json.dumps(document), "case")), build_local_runtime(runtime))
    return plan.resolved


def split_of(case: Case, steps: int) -> Split:
    """Full sequences of random tokens: of one record, or of many whose lengths differ."""
    draw = np.random.default_rng(0)
    records, sequences = list[TokenizedRecord](), list[list[int]]()
    for _ in range(2 * case.micro * steps):
        left, row = case.sequence, list[int]()
        while left:
            size = min(left, max(16, int(draw.lognormal(np.log(_SHORT), 0.7)))) if case.packing else left
            tokens = draw.integers(3, SHAPES[case.shape].vocabulary, size).astype(np.int32)
            row.append(len(records))
            records.append(TokenizedRecord(tokens, np.ones(size, dtype=bool), size, 1))
            left -= size
        sequences.append(row)
    return Split.of(records, sequences)


class NoCheckpoints:
    """Writes none: those of a whole model would be tens of gigabytes."""

    def save(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def restore_newest(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def drawn_in_place(shape: Shape) -> Iterator[None]:
    """Loading draws a model's weights on the device instead of reading a file; a quantized base needs the file."""
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM  # noqa: PLC0415  seconds

    def draw(_folder: Path, *, dtype: torch.dtype, **_: Any) -> Any:
        torch.set_default_dtype(dtype)
        try:
            with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
                return LlamaForCausalLM(LlamaConfig(**shape.config()))
        finally:
            torch.set_default_dtype(torch.float32)

    with patch.object(AutoModelForCausalLM, "from_pretrained", draw):
        yield


def measure(case: Case, folder: Path, runtime: str, steps: int) -> dict[str, Any]:
    """Memory and speed of one training, or why it failed."""
    job = job_of(case, runtime, steps)
    device, world, split = choose_device(job, 0), World(), split_of(case, steps)
    is_cuda = device.torch_device.type == "cuda"
    if job.quantization in ("nf4", "int8"):
        if not (folder / case.shape).is_dir():
            make_model(folder / case.shape, SHAPES[case.shape].config(), device.torch_device.type)
            _empty()
        model = load_model(folder / case.shape, job, device, world)
    else:
        with drawn_in_place(SHAPES[case.shape]):
            model = load_model(folder, job, device, world)
    _empty()
    losses = Losses.choose(model, job, device, world, Frame.of(split, job.training, device))
    held = torch.cuda.memory_allocated() if is_cuda else 0
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    metrics = folder / "metrics.jsonl"
    checkpoints: Any = NoCheckpoints()
    board, stop = Board(Stage.TRAIN, is_quiet=True), StopRequest(raises=False)
    trained = Loop(job, losses, split, None, world, checkpoints, metrics, board, stop).run()
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    tokens = trained.trained_tokens / trained.steps
    # Each speed is the mean since the first step: their difference is that of the second half.
    seconds = [(at + 1) * tokens / line["tokensPerSecond"] for at, line in enumerate(lines)]
    half = steps // 2
    return {
        "path": "fast" if losses.fast else "plain",
        "held_bytes": held,
        "peak_allocated_bytes": torch.cuda.max_memory_allocated() if is_cuda else 0,
        "peak_reserved_bytes": torch.cuda.max_memory_reserved() if is_cuda else 0,
        "tokens_per_second": round(tokens * (steps - half) / (seconds[-1] - seconds[half - 1]), 1),
        "first_step_seconds": round(seconds[0], 1),
    }


def described(case: Case) -> dict[str, Any]:
    """The case in the words of the result."""
    return {
        "model": asdict(SHAPES[case.shape]),
        "method": case.method,
        "rank": case.rank if case.method == "lora" else None,
        "quantization": case.quantization,
        "sequence_length": case.sequence,
        "micro_batch": case.micro,
        "packing": case.packing,
        "gradient_checkpointing": case.checkpointing,
        "lora_dropout": case.dropout,
    }


def _empty() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@click.command(context_settings={"show_default": True})
@click.option("--case", "names", multiple=True, help="Names of cases [all].")
@click.option("--steps", type=click.IntRange(2, 20), default=4, help="Optimizer steps of each.")
@click.option("--small", is_flag=True, help="A tiny model on CPU: does the benchmark itself work?")
@click.option("--out", type=click.Path(path_type=Path), default=_RESULTS, help="Folder of the result.")
def main(names: tuple[str, ...], steps: int, small: bool, out: Path) -> None:
    """Measure memory and speed of trainings on one GPU."""
    on = machine()
    if not small and on["gpu"] is None:
        raise click.ClickException(
            "no GPU is visible to PyTorch; try --small for a look at the benchmark on CPU"
        )
    cases = [case for case in _ALL if case.name in names] if names else _ALL
    if small:
        cases = [
            replace(case, shape="try", sequence=128) for case in cases if case.quantization in (None, "nf4")
        ]
    called = (on["gpu"] or "cpu").lower().replace(" ", "-")
    path = out / f"memory-{called}.json"
    out.mkdir(parents=True, exist_ok=True)
    measured: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        for case in cases:
            try:
                found = measure(case, Path(name), "hf-cpu" if small else "hf", steps)
            except torch.OutOfMemoryError:
                found = {"failed": "out of memory"}
            measured[case.name] = described(case) | found
            torch._dynamo.reset()  # noqa: SLF001  its only door
            _empty()
            print(json.dumps({case.name: found}), flush=True)
            path.write_text(json.dumps({"machine": on, "steps": steps, "cases": measured}, indent=2) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
