# SPDX-License-Identifier: Apache-2.0
"""Puts the adapter that a job continues on its base model, ready to be trained."""

from pathlib import Path
from typing import Any

from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_trainer.model.peft_warnings import peft_is_strict
from tuneyard_trainer.pod.failures import bad_input


def with_former_adapter(base: Any, folder: Path | None, job: ResolvedJob) -> Any:
    """`base` with the adapter in `folder`, which prepare has checked and left there: a PeftModel.

    Rank, alpha and target modules are the adapter's. Dropout is the job's where it wrote `lora`.

    Raises:
        StageFailure: BadInput, if the adapter leaves any of its layers without weights.
    """
    from peft import LoraConfig, PeftModel  # noqa: PLC0415  seconds

    if folder is None:
        raise AssertionError("a job that continues an adapter has the folder in which prepare left it")
    config = LoraConfig.from_pretrained(folder)
    config.inference_mode = False
    if job.adapter is not None and job.adapter.must_match_lora:
        config.lora_dropout = job.lora.dropout
    with peft_is_strict():
        try:
            return PeftModel.from_pretrained(base, folder, is_trainable=True, config=config)
        except (UserWarning, ValueError, RuntimeError) as error:
            raise bad_input(f"model.adapter does not fit the model: {error}") from error
