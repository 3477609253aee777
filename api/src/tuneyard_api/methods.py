# SPDX-License-Identifier: Apache-2.0
"""The training methods of this project's trainer, and what each of them leaves behind.

A FineTuneRuntime may have other methods, of other images: those are taken to make an adapter that servers load.
"""

from dataclasses import dataclass, replace
from typing import Literal

Result = Literal["adapter", "model", "prompt"]
"""adapter: LoRA in PEFT's layout, which servers of adapters load. model: a whole model. prompt: virtual tokens in PEFT's layout,
which PEFT alone loads."""


@dataclass(frozen=True)
class Method:
    """One method."""

    name: str
    """Value of `spec.method`."""
    trains: str
    """What is trained, in words."""
    result: Result
    is_merged: bool = False
    """Whether the model is the base model with what was trained merged into its weights."""

    @property
    def made(self) -> str:
        """What it leaves behind, in words before the base model's name."""
        if self.is_merged:
            return "An adapter merged into the weights of"
        return {"adapter": "An adapter for", "model": "All weights of", "prompt": "Virtual tokens for"}[
            self.result
        ]

    @property
    def loss_unit(self) -> str:
        """What its training and validation losses are measured in."""
        return "nats per pair" if self.name == "dpo" else "nats per learned token"


METHODS = (
    Method("lora", "an adapter: two thin factors beside each linear layer", "adapter"),
    Method("dpo", "an adapter as lora, by pairs of a chosen and a rejected answer", "adapter"),
    Method("sft", "all weights", "model"),
    Method(
        "ia3", "one number for each key, value and input of the last layer of an MLP", "model", is_merged=True
    ),
    Method("pTuning", "virtual tokens before each record, by a small network that makes them", "prompt"),
)
LORA_METHODS = ("lora", "dpo")
"""Methods that train a LoRA adapter, by the options of `spec.lora`."""
_BY_NAME = {method.name: method for method in METHODS}


def method_of(name: str, *, dora: bool) -> Method:
    """The method of this name, with or without `lora.dora`; a name that is not known here makes an adapter."""
    known = _BY_NAME.get(name, Method(name, "an adapter", "adapter"))
    return replace(known, result="model", is_merged=True) if dora and name in LORA_METHODS else known
