# SPDX-License-Identifier: Apache-2.0
"""The layers of a model that get a LoRA adapter, and the weights that none reaches."""

from typing import Any

import torch
from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_trainer.pod.failures import bad_input

_MAX_SHOWN = 4
_SMALL_SHARE = 0.05
"""Routers and convolutions are a few percent of a model; experts are most of it."""


def target_modules(base: Any, job: ResolvedJob) -> list[str]:
    """Last names of the layers that get an adapter, as vLLM and NIM read them.

    Those asked for, else every linear layer but the output head.

    Raises:
        StageFailure: BadInput, if the model lacks a layer that was asked for, or has no linear layers.
    """
    linear = {name for name, part in base.named_modules() if is_linear(part)}
    head = {name for name, part in base.named_modules() if part is base.get_output_embeddings()}
    names = sorted({_last(name) for name in linear - head})
    if not names:
        raise bad_input(
            f"method: {type(base).__name__} has no linear layers that an adapter could be put on; try method: sft"
        )
    asked = list(job.lora.target_modules or ())
    if unknown := [name for name in asked if name not in {_last(each) for each in linear}]:
        raise bad_input(
            f"lora.targetModules: the model has no linear layers named {', '.join(unknown)}; try {', '.join(names)}"
        )
    return asked or names


def is_linear(part: torch.nn.Module) -> bool:
    """Whether PEFT can put a LoRA adapter on a part; GPT-2's Conv1D is a linear layer whose weight lies on its side."""
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415  seconds

    return isinstance(part, (torch.nn.Linear, Conv1D))


def said_of_unreached(base: Any, targets: list[str]) -> str | None:
    """A warning with the share of weights that no adapter reaches, such as experts that are one tensor of three dimensions.

    Embeddings and the output head do not count.
    """
    outside = {id(part) for part in (base.get_input_embeddings(), base.get_output_embeddings())}
    total, unreached = 0, dict[str, int]()
    for place, part in base.named_modules():
        for name, weight in part.named_parameters(recurse=False):
            if weight.dim() <= 1 or id(part) in outside or isinstance(part, torch.nn.Embedding):
                continue
            total += weight.numel()
            if not (is_linear(part) and _last(place) in targets):
                called = ".".join([*place.split(".")[-2:], name])
                unreached[called] = unreached.get(called, 0) + weight.numel()
    share = sum(unreached.values()) / max(total, 1)
    if share < _SMALL_SHARE:
        return None
    largest = sorted(unreached, key=lambda name: (-unreached[name], name))
    return (
        f"no adapter reaches {share:.0%} of the weights between embedding and output head, because they are no linear layers:"
        f" {', '.join(largest[:_MAX_SHOWN])}; method: sft trains them"
    )


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]
