# SPDX-License-Identifier: Apache-2.0
"""Writes docs/reference/families.md from what `make families` measured; `--check` fails when the page is stale."""

import json
import sys
from pathlib import Path
from typing import Any

from committed import keep

_ROOT = Path(__file__).resolve().parents[1]
_TABLE = _ROOT / "trainer/src/tuneyard_trainer/model/families.json"
_PAGE = _ROOT / "docs/reference/families.md"
_UNPACKED = "the records are not packed: "
_HEAD = """# Model families

`make families` makes a tiny model of random weights for a causal family that transformers {version} has, and takes it
through the trainer's own stages on a CPU: prepared, trained for two steps with LoRA and with all weights, saved, read back
from disk with equal results, published. This page shows what it measured; a family that is not here was not measured: it
can be trained, and its records are not packed. `refused` says why the stage prepare refuses it, before a GPU is asked for:
what it sees itself, or how the tiny model failed.

Packed means that records share a sequence. It is done only where a record costs the same alone and packed, to 1e-4 of its
loss: by attention that is told where records begin (`bounds`), by transformers' own reading of positions (`positions`), or by a
mask of all pairs of tokens (`mask`); the first that a device can compute is used. That a packed record costs what it costs alone
was tested with transformers' `eager`, `sdpa` and `flex_attention` on a CPU, the last of them without windows, which PyTorch 2.15
can't compile for it. `flash-attn` has no CPU build and was not run; the trainer never selects it.

LoRA is put on linear layers, and on GPT-2's Conv1D. In families whose experts were layers before transformers 5, such as
DeepSeek V3, PEFT 0.21 takes the names `gate_proj`, `up_proj` and `down_proj` for the tensors of all experts, so that linear layers
of these names get no adapter. Experts that are one tensor of three dimensions get none either; the stage prepare warns of them
with their share of the weights, and method `sft` trains them. They are trained by PEFT's `target_parameters` where
`lora.targetModules` names them, on one GPU, without dropout, DoRA or quantization: `[q_proj, v_proj, experts.gate_up_proj,
experts.down_proj]` for example. That is not the default, because of who serves the adapter: by its source, vLLM 0.32 loads it for
gpt-oss, if both tensors have one. For Mixtral, Qwen3-MoE and others it refuses it, or does not find the experts and answers as
the base model does. Where the job's server is a vLLM, prepare refuses such an adapter before a GPU is asked for, and so it does
with one for the text part of a model that also sees, such as Qwen3.5, whose layers vLLM calls otherwise. For any other server
prepare warns. This was read, and run up to the reading of an adapter's files; an engine that answers was not run. Models that see or hear as well learn from text alone here, and get adapters on
the layers that text goes through.

| family | LoRA | all weights | packed by |
| --- | --- | --- | --- |
"""


def page(content: dict[str, Any]) -> str:
    """The page, in Markdown."""
    rows = [_row(family, row) for family, row in sorted(content["families"].items())]
    return _HEAD.format(version=content["transformers"]) + "".join(rows)


def _row(family: str, row: dict[str, Any]) -> str:
    warned = [part for part in row["lora"].split("; ") if part.startswith(_UNPACKED)]
    ways = ", ".join(row["packing"]) or "not packed"
    packed = f"not packed: {warned[0].removeprefix(_UNPACKED)}" if warned else ways
    return f"| `{family}` | {_outcome(row['lora'])} | {_outcome(row['sft'])} | {packed} |\n"


def _outcome(said: str) -> str:
    if said.startswith("works"):
        rest = [part for part in said.split("; ")[1:] if not part.startswith(_UNPACKED)]
        return "; ".join(["works", *rest])
    _, _, words = said.split(": ", 2)
    words = words.split(": ", 1)[1] if words.startswith("model ") else words
    return f"refused: {words}".replace("|", "\\|")


def main() -> int:
    """Exit code 1 if `--check` finds another page."""
    return keep({_PAGE: page(json.loads(_TABLE.read_text(encoding="utf-8")))})


if __name__ == "__main__":
    sys.exit(main())
