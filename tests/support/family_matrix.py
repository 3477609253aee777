# SPDX-License-Identifier: Apache-2.0
"""Every causal family of transformers on a tiny random model: what keeps records apart, and does it go through the stages?

Each column is the trainer's own code. `make families` writes what was measured beside that code, which reads it.
"""

import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.numpy import save_file
from tuneyard_api.pod_contract import PrepareFacts, ResolvedJob, Stage, StageResult
from tuneyard_data.tokenization import TokenizedRecord
from tuneyard_trainer.model import families as measured_families
from tuneyard_trainer.model.loading import Device
from tuneyard_trainer.model.record_bounds import take_bounds
from tuneyard_trainer.training.batches import Batch, collate, summed_loss
from tuneyard_trainer.workspace.prepared import Split

from support import tiny_families

TABLE = Path(measured_families.__file__).with_name("families.json")
_CPU = Device(torch.device("cpu"), torch.float32, is_autocast=False)
_LENGTHS = (9, 3, 60, 7, 2, 20)
"""Tokens of the records that are packed; windows of the tiny models are 24."""
_ROWS = ((0, 1, 2), (3, 4, 5))
_MOST = 1e-4
"""Largest difference of a record's loss alone and packed, as a share of it."""
_LEAST = 1e-3
"""Least such difference if nothing keeps records apart; else the measurement says nothing."""
_SPREAD = 0.15
"""Spread of random weights: attention is neither a mean of all tokens nor one token."""
_MAX_PARAMETERS = 3_000_000
_RECORDS = [
    {"prompt": f"say number {n} =", "completion": f" {'red' if n % 2 else 'cat'} {n % 7}"} for n in range(12)
]


def measure(family: str, folder: Path, write_tokenizer: Callable[[Path], None]) -> dict[str, Any]:
    """The row of a family; `folder` is emptied."""
    base = folder / "base"
    shutil.rmtree(folder, ignore_errors=True)
    base.mkdir(parents=True)
    write_tokenizer(base)
    row: dict[str, Any] = {"causal": True, "packing": []}
    names = {family}
    try:
        model = tiny_model(family)
    except (AttributeError, ImportError, ValueError):
        # transformers can't build it; the stage prepare says why.
        _save_without_model(family, base)
    else:
        # The configuration of some families has the name of another one.
        names.add(model.config.model_type)
        row["causal"] = _is_causal(model)
        # Reformer's forward pass can't take the positions of a batch: it is not packed.
        with suppress(RuntimeError):
            row["packing"] = ways_of(model)
        model.save_pretrained(base)
    with _known(dict.fromkeys(names, row)):
        for method in ("lora", "sft"):
            row[method] = run_stages(base, folder / method, method)
    shutil.rmtree(folder)
    return row


def _save_without_model(family: str, base: Path) -> None:
    """The files of a model that transformers can't build: its configuration, beside weights that nobody comes to read."""
    tiny_families.tiny_config(family).save_pretrained(base)
    save_file({"weight": np.zeros((2, 2), dtype=np.float32)}, base / "model.safetensors", {"format": "pt"})


def tiny_model(family: str) -> Any:
    """The model of a family with weights large enough that tokens matter to each other.

    Raises:
        AssertionError: if it does not become small.
    """
    from transformers import AutoModelForCausalLM

    config = tiny_families.tiny_config(family)
    if (size := tiny_families.size(config)) > _MAX_PARAMETERS:
        raise AssertionError(f"{family}: its smallest model has {size} parameters")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    draw = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.zero_()
        # Vectors keep about their value: a norm divides by what it was made with, a sink or a decay must not be zero.
        parameter.data.add_(torch.randn(parameter.shape, generator=draw), alpha=_SPREAD)
    return model


def ways_of(model: Any) -> list[str]:
    """What keeps packed records of a model apart, best first; its attention may be another one afterwards."""
    apart = [collate(_split([[number]], number), [0], _CPU) for number in range(len(_LENGTHS))]
    packed = [collate(_split(_ROWS, number), range(len(_ROWS)), _CPU) for number in range(len(_LENGTHS))]
    alone = [_loss(model, batch) for batch in apart]
    positions = torch.arange(packed[0].tokens.shape[1]).expand_as(packed[0].positions)
    blind = [Batch(batch.tokens, positions, None, batch.labels) for batch in packed]
    if _difference(model, blind, alone) < _LEAST:
        raise AssertionError("nothing is learned of packing: records cost the same however they are packed")
    kept = {}
    for way in ("positions", "mask", "bounds"):
        if way == "bounds" and not take_bounds(model):
            continue
        with mock.patch.object(
            measured_families.Family, "of", lambda _, way=way: measured_families.Family((way,))
        ):
            try:
                kept[way] = _difference(model, packed, alone) <= _MOST
            except Exception:  # noqa: BLE001  a family may refuse any mask
                kept[way] = False
    return [way for way in ("bounds", "positions", "mask") if kept.get(way)]


def _split(rows: Any, learned: int) -> Split:
    """Records of random tokens, of which one is learned."""
    draw = np.random.default_rng(0)
    records = [
        TokenizedRecord(
            draw.integers(2, 300, length).astype(np.int32),
            np.full(length, number == learned),
            length,
            1 if number == learned else length,
        )
        for number, length in enumerate(_LENGTHS)
    ]
    return Split.of(records, [list(row) for row in rows])


def _difference(model: Any, batches_of_each: list[Batch], alone: list[float]) -> float:
    """The largest difference of a record's loss to what it is alone, in parts of it."""
    return max(
        abs(_loss(model, batch) - own) / own for batch, own in zip(batches_of_each, alone, strict=True)
    )


def _loss(model: Any, batch: Batch) -> float:
    with torch.no_grad():
        return float(summed_loss(model, batch, _CPU))


def _is_causal(model: Any) -> bool:
    """Whether a token's logits stay as they are when a later token changes."""
    tokens = torch.arange(2, 26)[None]
    other = tokens.clone()
    other[0, -1] = 99
    with torch.no_grad():
        first, second = (model(input_ids=ids, use_cache=False).logits[0, :-1] for ids in (tokens, other))
    return bool(torch.allclose(first, second, atol=1e-4))


def run_stages(
    base: Path,
    folder: Path,
    method: str,
    records: Sequence[Mapping[str, str]] = _RECORDS,
    **changes: Mapping[str, Any],
) -> str:
    """Prepares, trains and publishes on a CPU; `works`, with what prepare warned of, or the words of the failure.

    `changes` are parts of the job that are laid over those of `_job`.
    """
    from tuneyard_trainer.pod.environment import PodEnvironment
    from tuneyard_trainer.run_stage import run_stage

    (folder / "workspace").mkdir(parents=True)
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "job.json").write_text(_job(base, data, folder, method, changes).model_dump_json())
    environ = {
        "TUNEYARD_JOB_FILE": str(folder / "job.json"),
        "TUNEYARD_WORKSPACE": str(folder / "workspace"),
        "TUNEYARD_TERMINATION_LOG": str(folder / "log"),
        "TUNEYARD_PORT": "",
    }
    said = "works"
    for stage in (Stage.PREPARE, Stage.TRAIN, Stage.PUBLISH):
        with mock.patch("tuneyard_trainer.stages.prepare.check_module_tree", check_modules_here):
            run_stage(stage, PodEnvironment.of(environ))
        result = StageResult.model_validate_json((folder / "log").read_bytes())
        if result.failure is not None:
            words = (
                result.failure.message.splitlines()[0]
                .replace(f"{folder}/workspace/", "")
                .replace(str(folder.parent), "")[:300]
            )
            return f"{stage}: {result.failure.failure_class}: {words}"
        if stage is Stage.PREPARE and (warned := PrepareFacts.model_validate(result.facts).warnings):
            said = "; ".join(["works", *warned])
    return said


def check_modules_here(job: ResolvedJob, folder: Path) -> list[str]:
    """The check of the module tree without the start of its process."""
    from tuneyard_trainer.model.module_tree_process import check_modules

    return check_modules(job, folder)


def _job(
    base: Path, data: Path, folder: Path, method: str, changes: Mapping[str, Mapping[str, Any]]
) -> ResolvedJob:
    runtime = {
        "name": "hf-cpu",
        "accelerator": "none",
        "precisions": ["fp32"],
        "modelFamilies": [],
        "trustRemoteCode": False,
    }
    dataset = {"training": {"path": str(data)}, "validation": None, "validationFraction": 0.25, "test": None}
    rate = 5e-6 if method == "dpo" else 0.01
    training = {"epochs": None, "maxSteps": 2, "learningRate": rate, "schedule": "constant", "warmupSteps": 0}
    sizes = {"globalBatchSize": 4, "microBatchSize": 2, "dataParallel": 1, "gradientAccumulation": 2}
    more = {
        "weightDecay": 0.0,
        "maxGradNorm": 1.0,
        "maxSequenceLength": 64,
        "packing": True,
        "precision": "auto",
    }
    content: dict[str, Any] = {
        "name": "demo",
        "namespace": "team",
        "uid": "1",
        "runtime": runtime,
        "model": {"path": str(base)},
        "dataset": dataset | {"format": "auto", "template": None, "lossOn": "completion"},
        "method": method,
        "lora": {"rank": 4, "alpha": 8},
        "training": training | sizes | more | {"gradientCheckpointing": False, "seed": 7},
        "checkpoint": {"everySteps": 2, "keep": 1},
        "evaluation": {"maxPrompts": 1, "maxNewTokens": 2},
        "adapterName": "demo-adapter",
        "registryPath": str(folder / "registry"),
    }
    laid_over = {name: {**content.get(name, {}), **part} for name, part in changes.items()}
    return ResolvedJob.model_validate(content | laid_over)


@contextmanager
def _known(rows: dict[str, Any]) -> Iterator[None]:
    with mock.patch.object(measured_families, "_measured", return_value=rows):
        yield


def main() -> None:
    """Measures the families named on the command line, or all, and writes the table."""
    from training.conftest import write_tokenizer

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    asked = sys.argv[1:] or tiny_families.families()
    rows = json.loads(TABLE.read_text())["families"] if sys.argv[1:] else {}
    with tempfile.TemporaryDirectory() as folder:
        for family in asked:
            rows[family] = measure(family, Path(folder) / "family", write_tokenizer)
            print(family, json.dumps(rows[family]), file=sys.stderr, flush=True)
    import transformers

    content = {"transformers": transformers.__version__, "families": dict(sorted(rows.items()))}
    TABLE.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
