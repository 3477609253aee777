# SPDX-License-Identifier: Apache-2.0
"""How fast is LoRA on a GPU or two at the shape of Llama 3.1 8B, beside what else one would run? In one go, on one machine.

Rows named `tuneyard` are FineTuneJobs that `tuneyard-trainer run` carries through all stages, those named `before`
the same with another source tree; transformers with PEFT, and with Liger's kernels, are the loop of their guides
(lora_baseline.py). Weights are random; texts are sources of the Python that runs this. What the figures mean:
docs/how-to/benchmarks.md.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from random_models import ONE_BILLION, make_model

_REPOSITORY = Path(__file__).resolve().parents[1]
_RESULTS = _REPOSITORY / "bench" / "results"
_LIMIT_SECONDS = 900
"""Longest time of one row."""
_BATCH = 8
"""Sequences of an optimizer step, unless a row says another number."""

_SHAPES: dict[str, dict[str, Any]] = {
    "8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        "tie_word_embeddings": False,
    },
    "1b": ONE_BILLION,
    "try": {
        "vocab_size": 3072,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
}


@dataclass(frozen=True)
class Row:
    """One measurement."""

    stack: str
    """tuneyard, before, peft or liger."""
    shape: str
    method: str
    data: str
    """long: each sequence is one record that fills it; short: packed records of about 200 tokens."""
    micro: int
    sequence: int
    checkpointing: bool = False
    quantization: str | None = None
    gpus: int = 1
    batch: int = _BATCH
    """Sequences of an optimizer step."""

    @property
    def name(self) -> str:
        """Such as tuneyard-8b-lora-long-2."""
        parts = [self.stack, self.shape, self.method, self.data, str(self.micro)]
        parts += [self.quantization] if self.quantization else []
        parts += [f"batch{self.batch}"] if self.batch != _BATCH else []
        parts += [f"x{self.gpus}"] if self.gpus > 1 else []
        return "-".join([*parts, *(["checkpointing"] if self.checkpointing else [])])


_ALL = [
    Row("tuneyard", "8b", "lora", "long", 2, 4096),
    Row("tuneyard", "8b", "lora", "short", 2, 4096),
    Row("tuneyard", "8b", "lora", "long", 2, 4096, quantization="fp8"),
    Row("tuneyard", "8b", "lora", "short", 2, 4096, quantization="fp8"),
    Row("tuneyard", "8b", "lora", "long", 4, 4096, quantization="fp8"),
    Row("tuneyard", "8b", "lora", "short", 4, 4096, quantization="fp8"),
    Row("before", "8b", "lora", "long", 1, 4096),
    Row("before", "8b", "lora", "short", 1, 4096),
    Row("peft", "8b", "lora", "long", 1, 4096),
    Row("peft", "8b", "lora", "long", 2, 4096),
    Row("liger", "8b", "lora", "long", 2, 4096),
    Row("tuneyard", "8b", "lora", "long", 1, 4096),
    Row("tuneyard", "1b", "lora", "short", 4, 2048),
    Row("before", "1b", "lora", "short", 4, 2048),
    Row("tuneyard", "1b", "sft", "short", 4, 2048),
    Row("before", "1b", "sft", "short", 4, 2048),
    Row("tuneyard", "8b", "lora", "long", 2, 4096, gpus=2),
    Row("tuneyard", "8b", "lora", "long", 2, 4096, quantization="fp8", gpus=2),
    Row("tuneyard", "1b", "lora", "short", 4, 2048, gpus=2),
    Row("tuneyard", "1b", "sft", "short", 4, 2048, gpus=2),
    Row("before", "1b", "sft", "short", 4, 2048, gpus=2),
    Row("tuneyard", "1b", "sft", "short", 4, 2048, batch=32),
    Row("tuneyard", "1b", "sft", "short", 4, 2048, batch=32, gpus=2),
]


def make_texts(folder: Path, sequence: int, sequences: int) -> None:
    """train.jsonl and test.jsonl, of long and of short records that fill so many sequences."""
    draw = np.random.default_rng(0)
    # A token of this tokenizer is three characters or so; what is too long is cut.
    long = sequence * 8
    for data in ("long", "short"):
        pieces = _pieces(_source(), draw, long if data == "long" else None)
        where = folder / f"{data}-{sequence}"
        where.mkdir(parents=True)
        wanted = {"train": sequences * (1 if data == "long" else sequence // 100), "test": 4}
        for split, count in wanted.items():
            lines = (json.dumps({"text": next(pieces)}) + "\n" for _ in range(count))
            (where / f"{split}.jsonl").write_text("".join(lines))


def _source() -> Iterator[str]:
    """Sources of this Python, again and again."""
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
    while True:
        for path in paths:
            yield path.read_text(encoding="utf-8", errors="ignore")


def _pieces(source: Iterator[str], draw: np.random.Generator, length: int | None) -> Iterator[str]:
    """Texts of `length` characters, or of 600 on average."""
    left = ""
    while True:
        size = length or int(np.clip(draw.lognormal(6.1, 0.75), 48, 20_000))
        while len(left) < size:
            left += next(source)
        yield left[:size]
        left = left[size:]


def job_of(row: Row, runtime: str, steps: int) -> dict[str, Any]:
    """The FineTuneJob of a row."""
    texts = {"claimName": "datasets", "path": f"{row.data}-{row.sequence}"}
    return {
        "apiVersion": "tuneyard.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": row.name},
        "spec": {
            "model": {
                "pvc": {"claimName": "models", "path": row.shape},
                **({"quantization": row.quantization} if row.quantization else {}),
            },
            "dataset": {
                "training": {"pvc": texts | {"path": f"{texts['path']}/train.jsonl"}},
                "test": {"pvc": texts | {"path": f"{texts['path']}/test.jsonl"}},
            },
            "method": row.method,
            "runtime": {"name": runtime},
            "parallelism": {"gpusPerNode": row.gpus},
            "training": {
                "maxSteps": steps,
                "learningRate": 1e-4,
                "maxSequenceLength": row.sequence,
                "globalBatchSize": row.batch,
                "microBatchSize": row.micro,
                "gradientCheckpointing": row.checkpointing,
            },
            "checkpoint": {"everySteps": steps},
            "evaluation": {"maxPrompts": 1, "maxNewTokens": 4},
        },
    }


def run_job(  # noqa: PLR0917  where and how
    row: Row, runtime: str, folder: Path, models: Path, steps: int, sources: Mapping[str, str]
) -> dict[str, Any]:
    """The figures of a row that is a FineTuneJob."""
    job_file, workspace = folder / f"{row.name}.json", folder / f"{row.name}-workspace"
    job_file.write_text(json.dumps(job_of(row, runtime, steps)))
    argv = [sys.executable, "-m", "tuneyard_trainer.main", "run", str(job_file)]
    argv += ["--workspace", str(workspace)]
    argv += ["--claim", f"models={models}", "--claim", f"datasets={folder / 'datasets'}"]
    environ = os.environ | {"TUNEYARD_PORT": ""} | sources
    ended = subprocess.run(argv, check=False, timeout=_LIMIT_SECONDS, env=environ)
    if ended.returncode:
        return {"failed": f"exit code {ended.returncode}"}
    facts = json.loads((workspace / "results" / "train.json").read_text())["facts"]
    lines = [json.loads(line) for line in (workspace / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    tokens = facts["trainedTokens"] / facts["steps"]
    # Each speed is the mean since the first step: their difference is that of the second half.
    seconds = [(at + 1) * tokens / line["tokensPerSecond"] for at, line in enumerate(lines) if "loss" in line]
    half = len(seconds) // 2
    shutil.rmtree(workspace)
    return {
        "path": facts.get("path"),
        "pathReason": facts.get("pathReason"),
        "tokensPerSecond": round(tokens * (len(seconds) - half) / (seconds[-1] - seconds[half - 1]), 1),
        "tokensPerSecondAfterFirst": round(tokens * (len(seconds) - 1) / (seconds[-1] - seconds[0]), 1),
        "firstStepSeconds": round(seconds[0], 1),
        "peakMemoryGiB": round(facts["peakMemoryBytes"] / 2**30, 2),
        "losses": [round(loss, 5) for loss in losses],
        "heldOutLoss": {side: facts["evaluation"][side]["loss"] for side in ("base", "tuned")},
    }


def run_baseline(row: Row, models: Path) -> dict[str, Any]:
    """The figures of a row that is not ours."""
    argv = [sys.executable, str(_REPOSITORY / "bench" / "lora_baseline.py")]
    argv += ["--model", str(models / row.shape), "--sequence", str(row.sequence)]
    argv += ["--micro-batch", str(row.micro)]
    argv += ["--liger"] if row.stack == "liger" else []
    argv += ["--checkpointing"] if row.checkpointing else []
    ended = subprocess.run(argv, check=False, timeout=_LIMIT_SECONDS, capture_output=True, text=True)
    if ended.returncode:
        return {"failed": ended.stderr.strip().splitlines()[-1][:300]}
    return dict(json.loads(ended.stdout.strip().splitlines()[-1]))


@click.command(context_settings={"show_default": True})
@click.option("--row", "names", multiple=True, help="Names of rows [all that can run].")
@click.option("--steps", type=click.IntRange(4, 20), default=12, help="Optimizer steps of a job.")
@click.option("--before", type=click.Path(path_type=Path), help="Another source tree of this repository.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where models are kept, with room for 18 GB.")
@click.option("--small", is_flag=True, help="A tiny model on CPU: does the benchmark itself work?")
@click.option("--out", type=click.Path(path_type=Path), default=_RESULTS, help="Folder of the result.")
def main(  # noqa: PLR0917  click passes keywords
    names: tuple[str, ...], steps: int, before: Path | None, folder: Path | None, small: bool, out: Path
) -> None:
    """Measure LoRA of the 8B shape on one GPU side by side with what else one would run."""
    on = machine()
    if not small and on["gpu"] is None:
        raise click.ClickException(
            "no GPU is visible to PyTorch; try --small for a look at the benchmark on CPU"
        )
    rows = [row for row in _ALL if row.name in names] if names else _ALL
    rows = [row for row in rows if row.stack != "before" or before]
    rows = [row for row in rows if row.stack != "liger" or find_spec("liger_kernel")]
    rows = [row for row in rows if small or row.gpus <= torch.cuda.device_count()]
    if small:
        rows = [
            Row(row.stack, "try", row.method, row.data, row.micro, 256, gpus=row.gpus)
            for row in rows
            if not row.quantization
        ]
    runtime = "hf-cpu" if small else "hf"
    measured: dict[str, dict[str, Any]] = {}
    called = (on["gpu"] or "cpu").lower().replace(" ", "-")
    kinds = {"-".join(filter(None, (row.shape, row.method, row.quantization))) for row in rows}
    what = "-".join(sorted(kinds))
    called += f"-x{most}" if (most := max(row.gpus for row in rows)) > 1 else ""
    path = out / f"side-by-side-{what}-{called}.json"
    with tempfile.TemporaryDirectory(dir=folder) as name:
        where = Path(name)
        models = (folder or where) / "models"
        for sequence in sorted({row.sequence for row in rows}):
            batch = max(row.batch for row in rows if row.sequence == sequence)
            make_texts(where / "datasets", sequence, steps * batch)
        for row in rows:
            if not (models / row.shape).is_dir():
                make_model(
                    models / row.shape,
                    _SHAPES[row.shape],
                    "cuda" if torch.cuda.is_available() else "cpu",
                )
                torch.cuda.empty_cache()
            print(f"--- {row.name}", flush=True)
            if row.stack in ("tuneyard", "before"):
                measured[row.name] = run_job(row, runtime, where, models, steps, _sources(row, before))
            else:
                measured[row.name] = run_baseline(row, models)
            print(json.dumps({row.name: measured[row.name]}), flush=True)
            out.mkdir(parents=True, exist_ok=True)
            result = {"machine": on, "steps": steps, "globalBatch": _BATCH, "rows": measured}
            path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {path}")
    if any("failed" in each for each in measured.values()):
        raise SystemExit(1)


def machine() -> dict[str, Any]:
    """What it was measured on."""
    packages = ("torch", "triton", "transformers", "peft", "liger-kernel")
    return {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _sources(row: Row, before: Path | None) -> dict[str, str]:
    """The environment that makes Python import another source tree."""
    if row.stack != "before" or before is None:
        return {}
    folders = [str(before.resolve() / part / "src") for part in ("api", "data", "trainer")]
    return {"PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])}


if __name__ == "__main__":
    main()
