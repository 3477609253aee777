# SPDX-License-Identifier: Apache-2.0
"""What PEFT is told of a job's new adapter, method by method."""

from typing import Any

from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_trainer.model.adapted_layers import target_modules


def build_adapter_config(base: Any, job: ResolvedJob) -> Any:
    """PEFT's configuration of the adapter that a job trains on `base`.

    Raises:
        StageFailure: BadInput, if it can't be put on this model.
    """
    from peft import LoraConfig  # noqa: PLC0415  seconds

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=job.lora.rank,
        lora_alpha=job.lora.alpha,
        lora_dropout=job.lora.dropout,
        use_dora=job.lora.dora,
        target_modules=target_modules(base, job),
    )
