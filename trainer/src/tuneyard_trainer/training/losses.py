# SPDX-License-Identifier: Apache-2.0
"""How the losses of a training are computed: by the fast path where the model is known to it, else by transformers.

The plain path is the reference, and what a CPU runs.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_trainer.fast.path import FastPath
from tuneyard_trainer.fast.structure import UnknownStructureError
from tuneyard_trainer.model.loading import Device
from tuneyard_trainer.model.world import World
from tuneyard_trainer.pod.failures import bad_input
from tuneyard_trainer.training.batches import IGNORED, Batch, Frame, collate, summed_loss
from tuneyard_trainer.workspace.prepared import Split


@dataclass(frozen=True)
class Losses:
    """Computes losses of one model."""

    model: Any
    device: Device
    frame: Frame
    fast: FastPath | None = None
    why_plain: str | None = None
    """Why there is no fast path, in words for people."""

    @classmethod
    def choose(cls, model: Any, job: ResolvedJob, device: Device, world: World, frame: Frame) -> "Losses":
        """Chooses the fast path if device, job and model allow it, on any `world`.

        Raises:
            StageFailure: BadInput, if they do not, and the base model's quantization is one of the fast path alone.
        """
        del world
        why = _why_not(job, device)
        if why is None:
            try:
                return cls(model, device, frame, fast_path(model, job, device, is_compiled=True))
            except UnknownStructureError as unknown:
                why = f"the model is not known to the fast path: {unknown}"
        if job.quantization == "fp8":
            raise bad_input(
                f"model.quantization: fp8 is trained by the fast path alone (got fp8, and {why}); try nf4, or leave it out"
            )
        return cls(model, device, frame, why_plain=why)

    def counted(self, split: Split) -> np.ndarray:
        """Int64 [sequences]: how many terms each adds to the loss, which is their mean: its learned tokens."""
        return split.learned_per_sequence()

    def summed(self, split: Split, indices: Sequence[int]) -> torch.Tensor:
        """Cross entropy in nats, summed over the learned tokens of these sequences."""
        batch = collate(split, indices, self.device, self.frame)
        if self.fast is None:
            return summed_loss(self.model, batch, self.device)
        return self.fast.summed_loss(batch.tokens, batch.positions, next_tokens(batch), batch.bounds)


def next_tokens(batch: Batch) -> torch.Tensor:
    """Int64 [B, S]: labels with a column for the last tokens, after which nothing comes."""
    return functional.pad(batch.labels, (0, 1), value=IGNORED)


def fast_path(model: Any, job: ResolvedJob, device: Device, *, is_compiled: bool) -> FastPath:
    """The fast path for a job's model.

    Raises:
        UnknownStructureError: if the model has something that is not known to it.
    """
    training = job.training
    return FastPath(
        model,
        longest=training.max_sequence_length,
        is_compiled=is_compiled,
        is_recomputing=training.gradient_checkpointing,
        is_fp8=job.quantization == "fp8",
        # Parameters that are trained are float32, whatever they are used in.
        dtype=torch.bfloat16 if job.method == "sft" and device.is_autocast else None,
    )


def _why_not(job: ResolvedJob, device: Device) -> str | None:
    """Why a job can't take the fast path, whatever its model is."""
    checks = {
        f"method {job.method} does not have one": job.method not in ("lora", "sft"),
        "lora.dora trains magnitudes, which it does not compute": job.lora.dora,
        "it needs an NVIDIA GPU": device.torch_device.type != "cuda",
        "it computes in bfloat16": not device.is_autocast,
        "this image has no C compiler, which compiling for a GPU needs": not _has_compiler(),
        f"the base model is quantized to {job.quantization}": job.quantization not in (None, "fp8"),
    }
    return next((said for said, applies in checks.items() if applies), None)


def _has_compiler() -> bool:
    """Whether Triton finds a compiler for the small programs that start its kernels."""
    return "CC" in os.environ or any(shutil.which(name) for name in ("gcc", "clang"))
