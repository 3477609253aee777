# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11"
# dependencies = ["trl==1.16.0", "transformers==5.23.0", "datasets==5.2.0", "torch==2.15.0"]
# [tool.uv]
# exclude-newer = "2026-11-28T00:00:00Z"
# ///
"""What trl does to chat records before it trains on them: one line of JSON.

SFTTrainer as its documentation has it, with packing and two processes; all tokens are learned, which is its default and less
work. The clock runs from the file to the data set that it would train on, without imports and the making of a model.
"""

import json
import sys
import time
from pathlib import Path

from datasets import load_dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer


def main(model: Path, data: Path, work: Path, limit: int) -> None:
    """Prepare the records."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": limit}
    tiny = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape))
    options = SFTConfig(
        output_dir=str(work / "out"),
        packing=True,
        max_length=limit,
        dataset_num_proc=2,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    began = time.monotonic()
    records = load_dataset("json", data_files=str(data), split="train", cache_dir=str(work / "cache"))
    trainer = SFTTrainer(model=tiny, processing_class=tokenizer, train_dataset=records, args=options)
    seconds = time.monotonic() - began
    print(json.dumps({"seconds": round(seconds, 2), "sequences": len(trainer.train_dataset)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
