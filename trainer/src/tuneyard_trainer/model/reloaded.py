# SPDX-License-Identifier: Apache-2.0
"""Is what was written what was evaluated? Read back from disk as others read it, before it may be published."""

from pathlib import Path
from typing import Any

import torch
from tuneyard_api.pod_contract import FailureClass

from tuneyard_trainer.model.loading import Device
from tuneyard_trainer.pod.failures import StageFailure

_AS_LOADED, _READ_BACK = "default", "read_back"
_MAX_DIFFERENCE = 1e-3
"""Largest difference, as a share of the largest logit."""
_MAX_ROUNDING = 0.05
"""The same for merged weights that are stored in fewer bits than float32, which rounds each of them once more."""


def check_written(model: Any, folder: Path, tokens: list[int], device: Device) -> None:
    """Compares what is in `folder` with the model in memory: an adapter by logits of `tokens`, a model by its tensors.

    An adapter is read by plain PEFT onto the base model that is in memory already.

    Raises:
        StageFailure: InternalError, if they differ.
    """
    difference = (
        _of_adapter(model, folder, tokens, device)
        if hasattr(model, "peft_config")
        else _of_model(model, folder)
    )
    if difference:
        raise StageFailure(
            FailureClass.BUG, f"{folder}: what was written is not what was evaluated: {difference}"
        )


def check_merged(model: Any, folder: Path, tokens: list[int], device: Device) -> None:
    """Compares the merged model in `folder` with the adapter in memory that was merged, by logits of `tokens`.

    Raises:
        StageFailure: InternalError, if they differ by more than its type rounds.
    """
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  seconds

    ids = torch.tensor([tokens])
    own = _logits(model.eval(), ids.to(device.torch_device), device).cpu()
    merged = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
    with torch.no_grad():
        back = merged(input_ids=ids, use_cache=False).logits.float()
    most = _MAX_DIFFERENCE if merged.dtype == torch.float32 and not device.is_autocast else _MAX_ROUNDING
    difference = float((own - back).abs().max())
    if difference > most * float(own.abs().max()):
        raise StageFailure(
            FailureClass.BUG,
            f"{folder}: the merged model is not what was evaluated: it gives other logits (by {difference:.3g})",
        )


def _of_adapter(model: Any, folder: Path, tokens: list[int], device: Device) -> str | None:
    ids = torch.tensor([tokens], device=device.torch_device)
    was_training = model.training
    model.eval()
    own = _logits(model, ids, device)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.load_adapter(str(folder), _READ_BACK, torch_device=str(device.torch_device))
    try:
        model.set_adapter(_READ_BACK)
        back = _logits(model, ids, device)
    finally:
        model.set_adapter(_AS_LOADED)
        model.delete_adapter(_READ_BACK)
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name in trained
        model.train(was_training)
    most = float((own - back).abs().max())
    if most <= _MAX_DIFFERENCE * float(own.abs().max()):
        return None
    return f"read back by PEFT, it gives other logits (by {most:.3g})"


def _logits(model: Any, ids: torch.Tensor, device: Device) -> torch.Tensor:
    with torch.no_grad(), device.autocast():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits.float()


def _of_model(model: Any, folder: Path) -> str | None:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  seconds

    back = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    own, read = model.state_dict(), back.state_dict()
    for name in sorted(own.keys() | read.keys()):
        if name not in read or name not in own:
            return f"the tensor {name} is in one of them only"
        if not torch.equal(own[name].cpu().to(read[name].dtype), read[name]):
            return f"the tensor {name} has other values"
    return None
