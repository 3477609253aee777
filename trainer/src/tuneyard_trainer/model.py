# SPDX-License-Identifier: Apache-2.0
"""The base model on its device, with a LoRA adapter that alone is trained."""

import json
import os
import shutil
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tuneyard_api.pod_contract import FailureClass, ResolvedJob

from tuneyard_trainer import durable
from tuneyard_trainer.continued import with_former_adapter
from tuneyard_trainer.failures import StageFailure, bad_input
from tuneyard_trainer.layout import ADAPTER_FILES
from tuneyard_trainer.quantized import hold_weights_still, quantization_options
from tuneyard_trainer.surroundings import usable_cores


@dataclass(frozen=True)
class Device:
    """Where and in which precision."""

    torch_device: torch.device
    weights: torch.dtype
    """Of the frozen base model; the adapter is always float32."""
    is_autocast: bool

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 matrix products, or nothing."""
        if not self.is_autocast:
            return nullcontext()
        context: AbstractContextManager[object] = torch.autocast(self.torch_device.type, dtype=torch.bfloat16)
        return context

    def peak_memory_bytes(self) -> int:
        """Most memory in use so far: of the GPU, or of the process on CPU."""
        if self.torch_device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.torch_device))
        import resource  # noqa: PLC0415  not on every platform

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def choose_device(job: ResolvedJob, local_rank: int) -> Device:
    """The accelerator that the runtime promises, never another one.

    Raises:
        StageFailure: AcceleratorMissing, if it is not there.
    """
    asked = job.training.precision
    if job.runtime.accelerator == "none":
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", usable_cores())))
        # On a CPU float32 is faster, and exact: bfloat16 only for those who ask for it.
        return Device(torch.device("cpu"), torch.float32, is_autocast=asked == "bf16")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < job.gpus_per_node:
        raise StageFailure(
            FailureClass.ACCELERATOR_MISSING,
            f"runtime {job.runtime.name} trains on {job.gpus_per_node} NVIDIA GPU(s), but PyTorch {torch.__version__}"
            f" sees {found}; try the node's driver and the NVIDIA runtime class, or a runtime for CPU",
        )
    has = [name for name in job.runtime.precisions if name != "bf16" or torch.cuda.is_bf16_supported()]
    precision = asked if asked != "auto" else has[0]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return Device(torch.device("cuda", local_rank), dtype, is_autocast=precision == "bf16")


def load_model(folder: Path, job: ResolvedJob, device: Device, former: Path | None = None) -> Any:
    """The base model with an adapter, the same in every process: a PeftModel.

    The adapter is a new one, or the one in `former` if the job goes on from one.

    Raises:
        StageFailure: BadInput, if lora.targetModules names what the model does not have.
    """
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  seconds
    from transformers.utils import logging  # noqa: PLC0415

    # A progress bar per shard is noise in a log.
    logging.disable_progress_bar()
    base = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=device.weights,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=job.runtime.trust_remote_code,
        attn_implementation="sdpa",
        **quantization_options(job, device.torch_device, device.weights),
    )
    if job.quantization is None:
        base = base.to(device.torch_device)
    else:
        hold_weights_still(base)
    model = with_former_adapter(base, former, job) if job.adapter else _with_new_adapter(base, job)
    if job.training.gradient_checkpointing:
        base.activation_checkpointing_enable()
    return model


def _with_new_adapter(base: Any, job: ResolvedJob) -> Any:
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415  seconds

    targets = _target_modules(base, job)
    torch.manual_seed(job.training.seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=job.lora.rank,
        lora_alpha=job.lora.alpha,
        lora_dropout=job.lora.dropout,
        target_modules=targets,
    )
    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5 for a property under its old name.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        return get_peft_model(base, config)


def _target_modules(base: Any, job: ResolvedJob) -> list[str]:
    """Last names of the layers that get an adapter, as vLLM and NIM read them.

    Those asked for, else every linear layer but the output head.
    """
    linear = {name for name, part in base.named_modules() if isinstance(part, torch.nn.Linear)}
    head = {name for name, part in base.named_modules() if part is base.get_output_embeddings()}
    names = sorted({name.rsplit(".", 1)[-1] for name in linear - head})
    asked = list(job.lora.target_modules or ())
    if unknown := [name for name in asked if name not in {part.rsplit(".", 1)[-1] for part in linear}]:
        raise bad_input(
            f"lora.targetModules: the model has no linear layers named {', '.join(unknown)}; try {', '.join(names)}"
        )
    return asked or names


def trained_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """The adapter's parameters by name, in a fixed order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_adapter(model: Any, folder: Path, base_name: str) -> None:
    """In PEFT's layout, replacing what an interrupted run may have left."""
    from peft import get_peft_model_state_dict  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in sorted(state.items())}
    config = model.peft_config["default"].to_dict() | {
        "inference_mode": True,
        "base_model_name_or_path": base_name,
    }
    shutil.rmtree(folder, ignore_errors=True)
    with durable.folder_being_written(folder) as temporary:
        content = json.dumps(config, indent=2, sort_keys=True, default=_plain)
        (temporary / ADAPTER_FILES[0]).write_text(content + "\n", encoding="utf-8")
        save_file(tensors, temporary / ADAPTER_FILES[1], metadata={"format": "pt"})


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)
