# SPDX-License-Identifier: Apache-2.0
"""Merges what was trained into the base model, for methods whose adapters no server loads."""

import shutil
from pathlib import Path
from typing import Any

from tuneyard_api import durable
from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_trainer.model.loading import keep_model_files
from tuneyard_trainer.model.peft_warnings import peft_is_strict


def write_merged(adapter: Path, base: Path, folder: Path, job: ResolvedJob) -> None:
    """Writes the base model with `adapter` merged into its weights, in the types of the base model's own weights.

    The base model is read once more from disk into main memory: so what is merged is what plain PEFT would merge, on one
    process and on many. Replaces what an interrupted run may have left.
    """
    from peft import PeftModel  # noqa: PLC0415  seconds
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  seconds

    model = AutoModelForCausalLM.from_pretrained(
        base,
        dtype="auto",
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=job.runtime.trust_remote_code,
    )
    with peft_is_strict():
        merged: Any = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    shutil.rmtree(folder, ignore_errors=True)
    with durable.folder_being_written(folder) as temporary:
        merged.save_pretrained(temporary, max_shard_size="5GB")
        keep_model_files(base, temporary)
