# SPDX-License-Identifier: Apache-2.0
"""How fast are chat records checked and tokenised, beside what trl does before it trains, and in how much memory?

Both read the same file with the same tokenizer, one after the other: the stage `prepare` with all its checks, and
SFTTrainer's own preparation (data_baseline.py, in an environment of its own). Records and tokenizer are made of the
sources of the Python that runs this. What the figures mean: docs/how-to/benchmarks.md.
"""

import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
from measured_on import machine, versions
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

_REPOSITORY = Path(__file__).resolve().parents[1]
_RESULTS = _REPOSITORY / "bench" / "results"
_LIMIT = 2048
"""Tokens of a sequence."""
_VOCABULARY = 16_000
_AIMS = {"throughput of trl, at least": 2.0, "memory of trl, at most": 1 / 3}
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_PREPARE = """
import json, os, sys, time
from tuneyard_data.pretrained import hide_pytorch
hide_pytorch()
import transformers
from tuneyard_api.pod_contract import Stage
from tuneyard_trainer.pod.environment import PodEnvironment
from tuneyard_trainer.run_stage import run_stage
from tuneyard_trainer.stages import prepare
began = time.monotonic()
code = run_stage(Stage.PREPARE, PodEnvironment.of(os.environ))
print(json.dumps({"seconds": round(time.monotonic() - began, 2)}))
sys.exit(code)
"""


def make_model(folder: Path, texts: list[str]) -> None:
    """A byte-level BPE as chat models have, learned from `texts`, beside a model of one layer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=_VOCABULARY,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": _TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    config = {
        "model_type": "llama",
        "vocab_size": _VOCABULARY,
        "num_hidden_layers": 1,
        "tie_word_embeddings": True,
    }
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_key_value_heads": 1}
    (folder / "config.json").write_text(json.dumps(config | sizes))
    layers = ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down"]
    shapes: dict[str, tuple[int, ...]] = {f"layers.0.{name}_proj.weight": (8, 8) for name in layers}
    shapes |= {f"layers.0.{name}_layernorm.weight": (8,) for name in ("input", "post_attention")}
    shapes |= {"embed_tokens.weight": (_VOCABULARY, 8), "norm.weight": (8,)}
    weights = {f"model.{name}": np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def make_records(path: Path, texts: list[str], count: int) -> None:
    """Chats of 1 KB: a question of 400 characters, an answer of 500."""
    words = re.findall(r"\S+", "\n".join(texts))
    draw = random.Random(0)  # noqa: S311  no secret

    def text(length: int) -> str:
        at = draw.randrange(len(words) - length)
        return " ".join(words[at : at + length // 2])[:length]

    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            messages = [
                {"role": "user", "content": f"{number} {text(400)}"},
                {"role": "assistant", "content": text(500)},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


def job_of(model: Path, data: Path) -> dict[str, Any]:
    """The resolved job that prepare reads."""
    runtime = {"name": "hf-cpu", "accelerator": "none", "precisions": ["fp32"], "modelFamilies": []}
    dataset = {"training": {"path": str(data)}, "validation": None, "validationFraction": 0.05, "test": None}
    training = {
        "epochs": 1, "maxSteps": None, "learningRate": 1e-4, "schedule": "cosine", "warmupSteps": 0,
        "weightDecay": 0.0, "maxGradNorm": 1.0, "globalBatchSize": 8, "microBatchSize": 8, "dataParallel": 1,
        "gradientAccumulation": 1, "maxSequenceLength": _LIMIT, "packing": True, "precision": "auto",
        "gradientCheckpointing": False, "seed": 0,
    }  # fmt: skip
    return {
        "name": "bench", "namespace": "bench", "uid": "1",
        "runtime": runtime | {"trustRemoteCode": False},
        "model": {"path": str(model)},
        "dataset": dataset | {"format": "auto", "template": None, "lossOn": "completion"},
        "method": "lora", "lora": {}, "training": training, "checkpoint": {}, "evaluation": {},
        "adapterName": "bench", "registryPath": "/nowhere",
    }  # fmt: skip


def measured(argv: list[str], environ: dict[str, str], count: int) -> dict[str, Any]:
    """Runs a program that ends with a line of JSON: its seconds, its speed, and the most memory of all its processes.

    `cpuSeconds` are those of all its processes, imports included: on a busy machine they say more than the clock.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(argv, env=os.environ | environ, stdout=out, stderr=err)
        peak = own = 0
        while process.poll() is None:
            peak = max(peak, sum(map(_memory, _tree(process.pid))))
            own = max(own, _memory(process.pid))
            time.sleep(0.1)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise click.ClickException(f"{argv[0]} failed:\n{out.read()[-1000:]}{err.read()[-3000:]}")
        said = json.loads(out.read().strip().splitlines()[-1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        **said,
        "cpuSeconds": round(used, 1),
        "recordsPerSecond": round(count / said["seconds"]),
        "peakMemoryMiB": round(peak / 2**20),
        "peakMemoryOfFirstProcessMiB": round(own / 2**20),
    }


def _tree(root: int) -> list[int]:
    """A process and all that it started."""
    found = [root]
    for number in sorted(int(folder.name) for folder in Path("/proc").glob("[0-9]*")):
        with suppress(OSError):
            parent = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
            if parent in found:
                found.append(number)
    return found


def _memory(number: int) -> int:
    """Memory of a process in bytes, of what it shares with others its part (PSS)."""
    with suppress(OSError):
        lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return 0


@click.command(context_settings={"show_default": True})
@click.option("--records", type=click.IntRange(min=1000), default=1_000_000, help="Number of records.")
@click.option("--out", type=click.Path(path_type=Path), default=_RESULTS, help="Folder of the result.")
@click.option("--alone", is_flag=True, help="Without trl.")
def main(records: int, out: Path, alone: bool) -> None:
    """Measure prepare beside trl on this machine's cores."""
    texts = [
        path.read_text(encoding="utf-8", errors="ignore")
        for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    ]
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model", texts)
        for count in (records // 10, records):
            data = folder / "train.jsonl"
            make_records(data, texts, count)
            (folder / "job.json").write_text(json.dumps(job_of(folder / "model", data)))
            environ = {
                "TUNEYARD_JOB_FILE": str(folder / "job.json"),
                "TUNEYARD_WORKSPACE": str(folder / "workspace"),
                "TUNEYARD_TERMINATION_LOG": str(folder / "log"),
                "TUNEYARD_PORT": "",
            }
            (folder / "workspace").mkdir()
            rows[f"tuneyard-{count}"] = measured([sys.executable, "-c", _PREPARE], environ, count)
            shutil.rmtree(folder / "workspace")
            print(json.dumps(rows), flush=True)
        if not alone:
            trl = folder / "trl"
            argv = [
                os.environ.get("UV") or shutil.which("uv") or "uv",
                "run",
                "--script",
                str(_REPOSITORY / "bench/data_baseline.py"),
            ]
            # The environment is made before the clock and the memory are looked at.
            subprocess.run([*argv[:1], "sync", *argv[2:]], check=True, capture_output=True)
            argv += [str(folder / "model"), str(data), str(trl), str(_LIMIT)]
            rows[f"trl-{records}"] = measured(argv, {"HF_HOME": str(trl), "HF_HUB_OFFLINE": "1"}, records)
    ours, theirs = rows[f"tuneyard-{records}"], rows.get(f"trl-{records}")
    few = rows[f"tuneyard-{records // 10}"]
    # The check of the model's modules, in a process of its own, takes the same memory for any number of records.
    own = [row["peakMemoryOfFirstProcessMiB"] for row in (few, ours)]
    grown = (own[1] - own[0]) * 2**20 / (records - records // 10)
    result: dict[str, Any] = {
        "machine": machine(),
        "versions": versions("bench", "data", "trainer"),
        "records": records,
        "rows": rows,
        "bytesOfMemoryPerFurtherRecord": round(grown),
    }
    if theirs:
        speed = ours["recordsPerSecond"] / theirs["recordsPerSecond"]
        memory = ours["peakMemoryMiB"] / theirs["peakMemoryMiB"]
        result |= {"aims": _AIMS, "throughputOfTrl": round(speed, 2), "memoryOfTrl": round(memory, 2)}
    print(json.dumps(result, indent=2))
    if theirs:
        out.mkdir(parents=True, exist_ok=True)
        (out / "data.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
