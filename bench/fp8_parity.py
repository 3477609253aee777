# SPDX-License-Identifier: Apache-2.0
"""Does a base model in FP8 learn as well as in bfloat16? The same LoRA job in both, with two seeds, on a trained model.

Each is a FineTuneJob that `tuneyard-trainer run` carries through all stages; texts are sources of the Python that runs
this. The adapter of each is measured again on the base model in bfloat16, as servers have it.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from lora_side_by_side import machine, make_texts

_RESULTS = Path(__file__).resolve().parent / "results"
_SEQUENCE = 1024
_KINDS = (None, "fp8")


def job_of(kind: str | None, seed: int, steps: int, runtime: str) -> dict[str, Any]:
    """The FineTuneJob of one training."""
    texts = f"short-{_SEQUENCE}"
    return {
        "apiVersion": "tuneyard.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": f"parity-{kind or 'bf16'}-{seed}"},
        "spec": {
            "model": {
                "pvc": {"claimName": "model"},
                **({"quantization": kind} if kind else {}),
            },
            "dataset": {
                "training": {"pvc": {"claimName": "datasets", "path": f"{texts}/train.jsonl"}},
                "validation": {"pvc": {"claimName": "datasets", "path": f"{texts}/validation.jsonl"}},
                "test": {"pvc": {"claimName": "datasets", "path": f"{texts}/test.jsonl"}},
            },
            "method": "lora",
            "runtime": {"name": runtime},
            "training": {
                "maxSteps": steps,
                "learningRate": 2e-4,
                "maxSequenceLength": _SEQUENCE,
                "globalBatchSize": 8,
                "microBatchSize": 8,
                "seed": seed,
            },
            "checkpoint": {"everySteps": max(1, steps // 3), "publish": "last"},
            "evaluation": {"maxPrompts": 1, "maxNewTokens": 4},
        },
    }


def served_loss(model: Path, workspace: Path) -> float:
    """Nats per token of the test records by transformers and PEFT, with the base model in bfloat16."""
    # These imports take seconds.
    from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415
    from tuneyard_trainer.model.loading import Device  # noqa: PLC0415
    from tuneyard_trainer.training.batches import collate, summed_loss  # noqa: PLC0415
    from tuneyard_trainer.workspace.layout import ADAPTER, PREPARED  # noqa: PLC0415
    from tuneyard_trainer.workspace.prepared import Split  # noqa: PLC0415

    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = Device(where, torch.bfloat16, is_autocast=True)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).to(where)
    served = PeftModel.from_pretrained(base, workspace / ADAPTER).eval()
    test = Split.load(workspace / PREPARED / "test.safetensors")
    with torch.no_grad():
        total = sum(
            float(summed_loss(served, collate(test, [number], device), device)) for number in range(len(test))
        )
    return total / float(test.learned_per_sequence().sum())


def measure(model: Path, folder: Path, job: dict[str, Any], steps: int) -> dict[str, Any]:
    """The losses of one training."""
    job_file, workspace = folder / "job.json", folder / job["metadata"]["name"]
    job_file.write_text(json.dumps(job))
    argv = [sys.executable, "-m", "tuneyard_trainer.main", "run", str(job_file)]
    argv += ["--workspace", str(workspace)]
    argv += ["--claim", f"model={model}", "--claim", f"datasets={folder / 'datasets'}"]
    ended = subprocess.run(argv, check=False, env=os.environ | {"TUNEYARD_PORT": ""})
    if ended.returncode:
        return {"failed": f"exit code {ended.returncode}"}
    facts = json.loads((workspace / "results" / "train.json").read_text())["facts"]
    lines = [json.loads(line) for line in (workspace / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    return {
        "path": facts["path"],
        "trainingLoss": [round(loss, 5) for loss in losses[:: max(1, steps // 30)]],
        "validationLoss": {
            line["step"]: round(line["validationLoss"], 5) for line in lines if "validationLoss" in line
        },
        "heldOutLoss": {side: round(facts["evaluation"][side]["loss"], 5) for side in ("base", "tuned")},
        "servedLoss": round(served_loss(model, workspace), 5),
        "tokensPerSecond": facts["tokensPerSecond"],
    }


@click.command(context_settings={"show_default": True})
@click.option("--model", type=click.Path(path_type=Path), required=True, help="Folder of a trained model.")
@click.option("--steps", type=click.IntRange(3, 2000), default=300)
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1))
@click.option("--out", type=click.Path(path_type=Path), default=_RESULTS, help="Folder of the result.")
def main(model: Path, steps: int, seeds: tuple[int, ...], out: Path) -> None:
    """Compare held-out losses of FP8 and bfloat16, with the same seeds each."""
    on = machine()
    called = (on["gpu"] or "cpu").lower().replace(" ", "-")
    path = out / f"fp8-parity-{model.resolve().name}-{called}.json"
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_texts(folder / "datasets", _SEQUENCE, steps)
        texts = folder / "datasets" / f"short-{_SEQUENCE}"
        held_out = (texts / "train.jsonl").read_text().splitlines()
        # The last records of the source are no part of what is trained on.
        (texts / "test.jsonl").write_text("\n".join(held_out[-400:-200]) + "\n")
        (texts / "validation.jsonl").write_text("\n".join(held_out[-200:]) + "\n")
        (texts / "train.jsonl").write_text("\n".join(held_out[:-400]) + "\n")
        for seed in seeds:
            for kind in _KINDS:
                called_run = f"{kind or 'bf16'}-{seed}"
                job = job_of(kind, seed, steps, "hf" if on["gpu"] else "hf-cpu")
                runs[called_run] = measure(model, folder, job, steps)
                print(json.dumps({called_run: runs[called_run]}), flush=True)
                result = {"machine": on, "model": model.resolve().name, "steps": steps, "sequence": _SEQUENCE}
                path.write_text(json.dumps(result | {"runs": runs}, indent=2) + "\n")
    print(f"wrote {path}")
    if any("failed" in run for run in runs.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
