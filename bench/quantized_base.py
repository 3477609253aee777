# SPDX-License-Identifier: Apache-2.0
"""What does a base model in 4 or 8 bits save, and what does it cost? The same LoRA job thrice, on this machine.

    python bench/quantized_base.py MODEL_FOLDER DATA.jsonl --runtime hf

trains by `tuneyard-trainer run` with the base whole, in int8 and in nf4, and prints loss, peak memory and speed as
JSON. `--runtime hf` needs an NVIDIA GPU and never falls back to the CPU; `hf-cpu` trains there.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("data", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--runtime", type=click.Choice(["hf", "hf-cpu"]), default="hf", show_default=True)
@click.option("--steps", default=20, show_default=True)
@click.option("--length", default=512, show_default=True, help="Tokens of a sequence.")
def main(model: Path, data: Path, runtime: str, steps: int, length: int) -> None:
    """LoRA on MODEL with the base whole, in int8 and in nf4."""
    results = {}
    for kind in (None, "int8", "nf4"):
        results[kind or "whole"] = train(model.resolve(), data.resolve(), kind, runtime, (steps, length))
    print(json.dumps(results, indent=2))


def train(model: Path, data: Path, kind: str | None, runtime: str, size: tuple[int, int]) -> dict[str, Any]:
    """The facts of one training.

    Raises:
        SystemExit: with the stage's own sentence, if one fails.
    """
    folder = Path(tempfile.mkdtemp(prefix="quantized-"))
    claim = {"claimName": "here"}
    spec = {
        "model": {"pvc": {**claim, "path": model.name}, **({"quantization": kind} if kind else {})},
        "dataset": {"training": {"pvc": {"claimName": "data", "path": data.name}}},
        "method": "lora",
        "runtime": {"name": runtime},
        "training": {"maxSteps": size[0], "maxSequenceLength": size[1]},
        "evaluation": {"maxPrompts": 4, "maxNewTokens": 8},
    }
    job = {
        "apiVersion": "tuneyard.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "quantized"},
        "spec": spec,
    }
    (folder / "job.yaml").write_text(json.dumps(job))
    places = [
        "--workspace",
        folder / "work",
        "--claim",
        f"here={model.parent}",
        "--claim",
        f"data={data.parent}",
    ]
    argv = [sys.executable, "-m", "tuneyard_trainer.main", "run", folder / "job.yaml", *places]
    try:
        done = subprocess.run(argv, check=False, stdout=sys.stderr)
        if done.returncode:
            sys.exit(done.returncode)
        facts: dict[str, Any] = json.loads((folder / "work/results/train.json").read_text())["facts"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    kept = {key: facts[key] for key in ("steps", "finalLoss", "tokensPerSecond", "peakMemoryBytes")}
    losses = {name: facts["evaluation"][name]["loss"] for name in ("base", "tuned")}
    return {**kept, **{f"{name}Loss": loss for name, loss in losses.items()}}


if __name__ == "__main__":
    main()
