# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11"
# dependencies = ["trl==1.9.2", "transformers==5.23.0", "peft==0.21.2", "accelerate==1.15.0", "torch==2.15.0"]
# ///
"""Writes trl_dpo.json: what TRL's DPOTrainer computes for the pairs of `tiny_preferences`.

By hand, with another TRL or other pairs: `PYTHONPATH=tests uv run --script tests/training/trl_dpo.py`. TRL is no dependency of the project.
"""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets import Dataset
from support import tiny_preferences as tiny
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer

_FIGURES = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen")


def computed(base: Path, records: list[dict[str, Any]], folder: str) -> dict[str, Any]:
    """Loss, figures and gradients of one batch of all records."""
    options = DPOConfig(
        output_dir=folder,
        beta=tiny.BETA,
        max_length=128,
        per_device_train_batch_size=len(records),
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    trainer = DPOTrainer(
        tiny.build_base(base),
        args=options,
        # An adapter that is on the model already would be its own reference.
        peft_config=tiny.build_config(),
        train_dataset=Dataset.from_list(records),
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    kept = ("prompt_ids", "chosen_ids", "rejected_ids")
    rows = [{name: row[name] for name in kept} for row in trainer.train_dataset]
    trainer.model.train()
    tiny.move(trainer.model)
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    loss.backward()
    figures = {name: trainer._metrics["train"][name][-1] for name in _FIGURES}
    return {
        "records": rows,
        "loss": float(loss.detach()),
        "gradients": tiny.gradients_of(trainer.model),
    } | figures


def main() -> None:
    """Writes the file."""
    names = ("trl", "transformers", "peft", "torch")
    with tempfile.TemporaryDirectory() as folder:
        base = tiny.write_base(Path(folder) / "base")
        # One form at a time, as TRL looks at the first record of a data set alone.
        found = {
            "pairs": computed(base, tiny.PAIRS, folder),
            "chats": computed(base, tiny.CHATS[:1], folder),
            "chats without prompt": computed(base, tiny.CHATS[1:], folder),
        }
    content = {"versions": {name: version(name) for name in names}, "beta": tiny.BETA, **found}
    path = Path(__file__).with_name("trl_dpo.json")
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
