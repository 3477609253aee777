# SPDX-License-Identifier: Apache-2.0
"""Every method on a tiny random model of the best known families: does it go through the stages, up to what is published?

LoRA and full fine-tuning are in `family_matrix`, for all families. By hand, as it takes minutes:
`PYTHONPATH=tests python tests/support/method_matrix.py`, then `make generate`.
"""

import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from support.family_matrix import run_stages, tiny_model

TABLE = Path(__file__).with_name("method_matrix.json")
FAMILIES = (
    *("falcon", "gemma2", "gemma3_text", "gpt2", "llama", "mistral", "mixtral"),
    *("nemotron", "phi3", "qwen2", "qwen3", "starcoder2"),
)
_PAIRS = [{"prompt": f"say number {n} =", "chosen": " red", "rejected": f" cat {n % 7}"} for n in range(12)]
COLUMNS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "dora": ("lora", {"lora": {"dora": True}}),
    "dpo": ("dpo", {"dpo": {}, "dataset": {"format": "preference"}, "records": _PAIRS}),
    "ia3": ("ia3", {}),
    "pTuning": ("pTuning", {"pTuning": {"virtualTokens": 3}}),
}
"""The method of each column, and what is changed in the job and its data."""
_NOT_PACKED = "the records are not packed: "


def measure(
    family: str, columns: list[str], folder: Path, write_tokenizer: Callable[[Path], None]
) -> dict[str, str]:
    """The outcome of each column for a family: `works`, or the words of the failure; `folder` is emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    base = folder / "base"
    base.mkdir(parents=True)
    tiny_model(family).save_pretrained(base)
    write_tokenizer(base)
    row = {}
    for column in columns:
        method, changes = COLUMNS[column]
        said = run_stages(base, folder / column, method, **changes).split("; ")
        row[column] = "; ".join(part for part in said if not part.startswith(_NOT_PACKED))
    shutil.rmtree(folder)
    return row


def main() -> None:
    """Measures every family and writes the table."""
    import transformers
    from training.conftest import write_tokenizer

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for family in FAMILIES:
            rows[family] = measure(family, list(COLUMNS), Path(folder) / "family", write_tokenizer)
            print(family, json.dumps(rows[family]), file=sys.stderr, flush=True)
    content = {"transformers": transformers.__version__, "families": rows}
    TABLE.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
