# SPDX-License-Identifier: Apache-2.0
"""Adapters that PEFT trains and vLLM does not read: some on experts, and those of the text part of a model that also sees.

By the source of vLLM 0.32.0. `lora/model_manager.py`: an adapter on tensors of all experts is loaded where the class of the model
says `is_3d_moe_weight`, and must then have both tensors of a layer; for other classes it is refused, or nothing finds it and the
server answers as the base model does. `lora/lora_model.py`: layers whose last name the model lacks are refused.
"""

from collections.abc import Collection, Iterator
from typing import Any

from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_trainer.model.adapted_layers import ends_with, expert_tensors, is_linear, target_modules

VLLM_VERSION = "0.32.0"
"""The version whose source says so."""
EXPERTS_AS_ONE_TENSOR = frozenset(
    {
        "GptOssForCausalLM",
        "InternS1ProForConditionalGeneration",
        "Qwen3OmniMoeThinkerForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration",
        "Qwen3_5MoeForConditionalGeneration",
    }
)
"""Classes of vLLM that say `is_3d_moe_weight`; of their architectures people also fine-tune text alone."""
REFUSED_LAYERS = {"Glm4ForCausalLM": ("gate_up_proj",)}
"""Layers that transformers has as one and vLLM asks for in parts, by architecture."""


def why_unread(
    model: Any, config: Any, weights: Collection[str], job: ResolvedJob, tensors: list[str]
) -> str | None:
    """Why vLLM would not use the adapter of a job; None where nothing is known against it.

    `weights` are names in the model's files, and `tensors` those of experts that get an adapter, as PEFT is told them.
    """
    architecture = next(iter(getattr(config, "architectures", None) or ()), type(model).__name__)
    return next(_reasons(model, architecture, weights, job, tensors), None)


def _reasons(
    model: Any, architecture: str, weights: Collection[str], job: ResolvedJob, tensors: list[str]
) -> Iterator[str]:
    if place := _other_place(model, weights):
        inside, outside = place
        yield (
            f"model: it is served as {architecture}, which calls a layer {outside}, and the adapter calls it {inside}: vLLM"
            f" {VLLM_VERSION} would load the adapter and answer as the base model does"
        )
    if tensors and architecture not in EXPERTS_AS_ONE_TENSOR:
        yield (
            f"lora.targetModules: vLLM {VLLM_VERSION} does not load an adapter on tensors of all experts of {architecture} (got"
            f" {', '.join(tensors)}); try to leave them out"
        )
    if tensors and (missing := [name for name in expert_tensors(model) if not ends_with(name, tensors)]):
        yield (
            f"lora.targetModules: vLLM {VLLM_VERSION} loads an adapter on experts only with all tensors of a layer (got"
            f" {', '.join(tensors)}); try to add {'.'.join(missing[0].split('.')[-2:])}"
        )
    asked = () if job.adapter else target_modules(model, job)
    if refused := [name for name in REFUSED_LAYERS.get(architecture, ()) if name in asked]:
        yield (
            f"lora.targetModules: vLLM {VLLM_VERSION} has no layer {', '.join(refused)} in {architecture} and refuses an adapter on"
            " it; try lora.targetModules without it"
        )


def _other_place(model: Any, weights: Collection[str]) -> tuple[str, str] | None:
    """The name of a layer in memory and in the files, where the files have it inside of a language model beside other parts."""
    for name, part in model.named_modules():
        if name.startswith("model.layers.") and is_linear(part) and f"{name}.weight" not in weights:
            outside = name.replace("model.", "model.language_model.", 1)
            if f"{outside}.weight" in weights:
                return name, outside
    return None
