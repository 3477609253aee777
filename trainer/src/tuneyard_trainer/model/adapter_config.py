# SPDX-License-Identifier: Apache-2.0
"""What PEFT is told of a job's new adapter, method by method."""

from typing import Any

import torch
from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_trainer.model.adapted_layers import is_linear, target_modules, target_parameters
from tuneyard_trainer.pod.failures import bad_input


def build_adapter_config(base: Any, job: ResolvedJob) -> Any:
    """PEFT's configuration of the adapter that a job trains on `base`.

    Raises:
        StageFailure: BadInput, if it can't be put on this model.
    """
    from peft import IA3Config, LoraConfig, PromptEncoderConfig  # noqa: PLC0415  seconds

    if job.p_tuning is not None:
        return PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=job.p_tuning.virtual_tokens)
    if job.method == "ia3":
        scaled, feedforward = scaled_modules(base)
        return IA3Config(task_type="CAUSAL_LM", target_modules=scaled, feedforward_modules=feedforward)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=job.lora.rank,
        lora_alpha=job.lora.alpha,
        lora_dropout=job.lora.dropout,
        use_dora=job.lora.dora,
        target_modules=target_modules(base, job),
        target_parameters=target_parameters(base, job) or None,
    )


def scaled_modules(base: Any) -> tuple[list[str], list[str]]:
    """Last names of the layers that IA3 scales, and those of them whose input it scales, by PEFT's own table of families.

    Raises:
        StageFailure: BadInput, if PEFT does not know the family, or the model lacks one of its layers.
    """
    from peft.utils import constants  # noqa: PLC0415  seconds

    family = base.config.model_type
    scaled = constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(family)
    feedforward = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(family)
    if not scaled or feedforward is None:
        raise bad_input(f"method: PEFT does not say which layers of {family} IA3 scales; try method: lora")
    linear = [f".{name}" for name, part in base.named_modules() if is_linear(part)]
    if absent := [name for name in scaled if not any(each.endswith(f".{name}") for each in linear)]:
        raise bad_input(
            f"method: this model of {family} has no linear layer {', '.join(absent)}, which IA3 scales; try method: lora"
        )
    return list(scaled), list(feedforward)


def prompt_length(model: Any) -> int:
    """Virtual tokens that PEFT puts before each record that goes through `model`."""
    configs = getattr(model, "peft_config", {})
    return sum(config.num_virtual_tokens for config in configs.values() if config.is_prompt_learning)


def make_prompts_exact(model: Any) -> None:
    """Virtual tokens are made in float32 at each step, as PEFT makes those that it stores: autocast would round them."""
    encoder = model.prompt_encoder["default"]
    forward = encoder.forward

    def exact(indices: torch.Tensor) -> torch.Tensor:
        with torch.autocast(indices.device.type, enabled=False):
            made: torch.Tensor = forward(indices)
        return made

    encoder.forward = exact
