# SPDX-License-Identifier: Apache-2.0
"""How fast does the trainer train on real GPUs, and how much memory does it take? What is timed is the product.

Each figure is of a FineTuneJob that `tuneyard-trainer run` carries through prepare, train, evaluate and publish. The
large model has random weights, made here; the data is docstrings of the Python that runs this. What the figures
mean: docs/how-to/benchmarks.md.
"""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import torch
from random_models import ONE_BILLION, make_model

_REPOSITORY = Path(__file__).resolve().parents[1]
_TINY = _REPOSITORY / "examples" / "models" / "tiny-llama"
_RESULTS = _REPOSITORY / "bench" / "results"
_LIMIT_SECONDS = 1800
"""Longest time of one training."""

_TRY = ONE_BILLION | {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16}


@dataclass(frozen=True)
class Arm:
    """One training."""

    name: str
    model: str
    method: str
    gpus: int
    steps: int
    sequence: int
    batch: int
    micro_batch: int
    precision: str
    learning_rate: float
    prompts: int
    quantization: str | None = None

    def job(self, runtime: str) -> dict[str, Any]:
        """The FineTuneJob."""
        splits = {"training": "train", "validation": "validation", "test": "test"}
        return {
            "apiVersion": "tuneyard.io/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": self.name},
            "spec": {
                "model": {
                    "pvc": {"claimName": "models", "path": self.model},
                    **({"quantization": self.quantization} if self.quantization else {}),
                },
                "dataset": {
                    split: {"pvc": {"claimName": "datasets", "path": f"{file}.jsonl"}}
                    for split, file in splits.items()
                },
                "method": self.method,
                "runtime": {"name": runtime},
                "parallelism": {"gpusPerNode": self.gpus},
                "training": {
                    "maxSteps": self.steps,
                    "learningRate": self.learning_rate,
                    "maxSequenceLength": self.sequence,
                    "globalBatchSize": self.batch,
                    "microBatchSize": self.micro_batch,
                    "precision": self.precision,
                },
                "checkpoint": {"everySteps": max(self.steps // 2, 1)},
                "evaluation": {"maxPrompts": self.prompts, "maxNewTokens": 16},
            },
        }


def run(arm: Arm, runtime: str, folder: Path) -> dict[str, Any]:
    """Carries the job through all stages; its figures."""
    job_file, workspace = folder / f"{arm.name}.json", folder / f"{arm.name}-workspace"
    job_file.write_text(json.dumps(arm.job(runtime)))
    argv = [
        sys.executable,
        "-m",
        "tuneyard_trainer.main",
        "run",
        str(job_file),
        "--workspace",
        str(workspace),
    ]
    argv += ["--claim", f"models={folder / 'models'}", "--claim", f"datasets={folder / 'datasets'}"]
    print(f"--- {arm.name}", flush=True)
    ended = subprocess.run(argv, check=False, timeout=_LIMIT_SECONDS, env=os.environ | {"TUNEYARD_PORT": ""})
    if ended.returncode:
        return {"failed": f"exit code {ended.returncode}"}
    results = {
        stage: json.loads((workspace / "results" / f"{stage}.json").read_text())
        for stage in ("train", "publish")
    }
    lines = [json.loads(line) for line in (workspace / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    facts = results["train"]["facts"]
    shutil.rmtree(workspace)
    return {
        "gpus": arm.gpus,
        "method": arm.method,
        "steps": facts["steps"],
        "sequenceLength": arm.sequence,
        "globalBatch": arm.batch,
        "microBatch": arm.micro_batch,
        "precision": arm.precision,
        "quantization": arm.quantization,
        # Each is a mean over the last 20 steps: those of the second half know nothing of the warm-up.
        "tokensPerSecondMedian": statistics.median(
            line["tokensPerSecond"] for line in steps[len(steps) // 2 :]
        ),
        "peakMemoryGiBPerGpu": round(facts["peakMemoryBytes"] / 2**30, 2),
        "losses": [round(line["loss"], 5) for line in steps],
        "validationLoss": facts.get("validationLoss"),
        "heldOutLoss": {side: facts["evaluation"][side]["loss"] for side in ("base", "tuned")},
        "publishedBytes": results["publish"]["facts"]["sizeBytes"],
    }


def machine() -> dict[str, Any]:
    """What it was measured on."""
    has_gpu = torch.cuda.is_available()
    packages = ("torch", "transformers", "peft", "safetensors", "bitsandbytes")
    return {
        "gpu": torch.cuda.get_device_name() if has_gpu else None,
        "visibleGpus": torch.cuda.device_count() if has_gpu else 0,
        "cores": os.cpu_count(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def compare_precisions(folder: Path, runtime: str, steps: int) -> dict[str, Any]:
    """The committed small model, tuned in bfloat16 and in float32: how far the losses are apart."""
    runs = {
        precision: run(
            Arm(f"tiny-{precision}", "tiny-llama", "lora", 1, steps, 256, 8, 8, precision, 1e-3, 8),
            runtime,
            folder,
        )
        for precision in ("bf16", "fp32")
    }
    if any("failed" in each for each in runs.values()):
        return runs
    pairs = list(zip(runs["bf16"]["losses"], runs["fp32"]["losses"], strict=True))
    return {**runs, "largestRelativeDifference": round(max(abs(b - f) / f for b, f in pairs), 6)}


def quantize(folder: Path, runtime: str, steps: int, sequence: int) -> list[dict[str, Any]]:
    """LoRA on one GPU with the base in 8 and in 4 bits: memory and speed of the large model, losses of the small one."""
    return [
        run(
            Arm(f"{model}-{kind or 'whole'}", model, "lora", 1, steps, length, 8, 4, "auto", 1e-3, 8, kind),
            runtime,
            folder,
        )
        | {"model": model}
        for model, length in (("random", sequence), ("tiny-llama", min(sequence, 256)))
        for kind in (None, "int8", "nf4")
    ]


def compare_methods(
    folder: Path, runtime: str, steps: int, sequence: int, counts: Sequence[int]
) -> dict[str, Any]:
    """LoRA and full fine-tuning of the large model on each number of GPUs; the two precisions on the small one."""
    small = runtime == "hf-cpu"
    runs = [
        run(
            Arm(
                f"{method}-x{count}",
                "random",
                method,
                count,
                steps,
                sequence,
                8,
                2 if small else 4,
                "auto",
                2e-5 if method == "sft" else 2e-4,
                4,
            ),
            runtime,
            folder,
        )
        for count in counts
        for method in ("lora", "sft")
    ]
    return {"runs": runs, "precisions": compare_precisions(folder, runtime, 4 if small else 100)}


@click.command(context_settings={"show_default": True})
@click.option(
    "--gpus", type=click.IntRange(1, 8), multiple=True, help="GPUs of a training [one, and all there are]"
)
@click.option("--steps", type=click.IntRange(2, 10_000), default=40, help="Optimizer steps.")
@click.option("--quantized", is_flag=True, help="Only LoRA with the base whole, in int8 and in nf4; one GPU.")
@click.option("--small", is_flag=True, help="A tiny model on CPU: does the benchmark itself work?")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=_RESULTS, help="Folder of the result."
)
def main(gpus: tuple[int, ...], steps: int, quantized: bool, small: bool, out: Path) -> None:
    """Measure full fine-tuning and LoRA of a Llama of 1.1 billion parameters on this machine's GPUs."""
    on = machine()
    if not small and on["gpu"] is None:
        raise click.ClickException(
            "no GPU is visible to PyTorch; try --small for a look at the benchmark on CPU"
        )
    counts = (1,) if quantized else gpus or tuple(sorted({1, max(1, on["visibleGpus"])}))
    runtime, sequence = ("hf-cpu", 64) if small else ("hf", 2048)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(_TINY, folder / "models" / "tiny-llama")
        subprocess.run(
            [sys.executable, _REPOSITORY / "examples" / "docstrings" / "build.py", folder / "datasets"],
            check=True,
        )
        parameters = make_model(folder / "models" / "random", _TRY if small else ONE_BILLION)
        if quantized:
            what, parts = "quantized", {"quantized": quantize(folder, runtime, steps, sequence)}
        else:
            what, parts = "trainer", compare_methods(folder, runtime, steps, sequence, counts)
    result = {"machine": on, "parameters": parameters, **parts}
    called = (on["gpu"] or "cpu").lower().replace(" ", "-")
    path = out / f"{what}-{called}-x{max(counts)}.json"
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    runs = [*parts.get("runs", ()), *parts.get("quantized", ()), *parts.get("precisions", {}).values()]
    for each in runs:
        if isinstance(each, dict):
            print(json.dumps({key: value for key, value in each.items() if key != "losses"}))
    print(f"wrote {path}")
    if any("failed" in each for each in runs if isinstance(each, dict)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
