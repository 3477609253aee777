# SPDX-License-Identifier: Apache-2.0
"""Quantizes the frozen base model to 4 or 8 bits: nf4 and int8 with bitsandbytes, on an NVIDIA GPU or a CPU.

nf4: QLoRA (Dettmers et al. 2023) with doubly quantised constants; int8: LLM.int8() (Dettmers et al. 2022). Products
are made in the device's precision, and the adapter stays float32. fp8 is the fast path's (fast/fp8.py), which takes the
model as it is; here it is only asked whether the GPU has it.
"""

import importlib.util
import logging
from typing import Any

import torch
from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_trainer.pod.failures import bad_input

_HOPPER = (9, 0)
"""Compute capability."""


def quantization_options(
    job: ResolvedJob, torch_device: torch.device, products: torch.dtype
) -> dict[str, Any]:
    """The arguments for `from_pretrained`; empty if the model is read as it is.

    A quantised model is put on `torch_device` as it is read, and can't be moved or cast after that.

    Raises:
        StageFailure: BadInput, where it can't be done.
    """
    kind = job.quantization
    if kind is None:
        return {}
    if kind == "fp8":
        if why := why_no_fp8(torch_device):
            raise bad_input(
                f"model.quantization: fp8 needs an NVIDIA GPU of the Hopper generation or later, and {why} (got fp8); try such"
                " a GPU by scheduling.gpuProduct, or nf4"
            )
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise bad_input(
            f"model.quantization: this image has no bitsandbytes (got {kind}); try an image that has, or leave it out"
        )
    from transformers import BitsAndBytesConfig  # noqa: PLC0415  seconds

    # It warns in every product that it casts its input.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if kind == "nf4":
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=products,
        )
    else:
        config = BitsAndBytesConfig(load_in_8bit=True)
    return {"quantization_config": config, "device_map": {"": torch_device}}


def why_no_fp8(device: torch.device) -> str | None:
    """Why a device can't multiply in FP8 with a scale for each row, in words; None: it can."""
    if device.type != "cuda":
        return "the training runs on a CPU"
    return (
        None
        if torch.cuda.get_device_capability(device) >= _HOPPER
        else f"this is {torch.cuda.get_device_name(device)}"
    )


def hold_weights_still(base: Any) -> None:
    """Keeps bitsandbytes from repacking 4-bit weights in the first evaluation, as it does on a CPU with bfloat16.

    Their constants would be coarser from then on, so that the rest of a training saw another base model than its
    beginning; and layers whose width is no multiple of 64 could not be repacked at all.
    """
    for part in base.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False
