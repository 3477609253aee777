# SPDX-License-Identifier: Apache-2.0
"""The model on its device, or spread over several: all of it trained (sft), or an adapter alone (all other methods)."""

import json
import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tuneyard_api import durable
from tuneyard_api.methods import METHODS
from tuneyard_api.pod_contract import ADAPTER_CONFIG, ADAPTER_WEIGHTS, FailureClass, ResolvedJob
from tuneyard_api.registry import StoredBase

from tuneyard_trainer.model.adapter_config import build_adapter_config, make_prompts_exact
from tuneyard_trainer.model.families import Family
from tuneyard_trainer.model.peft_warnings import peft_is_strict
from tuneyard_trainer.model.placement import is_whole_everywhere
from tuneyard_trainer.model.quantized import hold_weights_still, quantization_options
from tuneyard_trainer.model.record_bounds import take_bounds
from tuneyard_trainer.model.resume_adapter import with_former_adapter
from tuneyard_trainer.model.unread import keep_unread
from tuneyard_trainer.model.weights import check_loaded
from tuneyard_trainer.model.world import World, whole
from tuneyard_trainer.pod.environment import usable_cores
from tuneyard_trainer.pod.failures import StageFailure, bad_input
from tuneyard_trainer.workspace.layout import is_model_file


@dataclass(frozen=True)
class Device:
    """The device, and the precision of its products."""

    torch_device: torch.device
    weights: torch.dtype
    """Precision of a frozen base model. Trained parameters are always float32."""
    is_autocast: bool

    def autocast(self) -> AbstractContextManager[object]:
        """The context for bfloat16 matrix products, or one that changes nothing."""
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
        # On a CPU float32 is faster and exact, so bfloat16 is used only if the job asks for it.
        return Device(torch.device("cpu"), torch.float32, is_autocast=asked == "bf16")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < job.gpus_per_node:
        raise StageFailure(
            FailureClass.ACCELERATOR_MISSING,
            f"runtime {job.runtime.name} trains on {job.gpus_per_node} NVIDIA GPU(s), but PyTorch {torch.__version__}"
            f" sees {found}; try the node's driver and the NVIDIA runtime class, or a runtime for CPU",
        )
    precision = asked if asked != "auto" else _best_precision(job)
    if precision == "bf16" and not _has_bf16():
        raise bad_input(
            f"training.precision: {torch.cuda.get_device_name()} has no bfloat16 (got bf16); try fp32, or a GPU of the"
            " Ampere generation or later by scheduling.gpuProduct"
        )
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return Device(torch.device("cuda", local_rank), dtype, is_autocast=precision == "bf16")


def _best_precision(job: ResolvedJob) -> str:
    """The first of the runtime's precisions that the GPU supports; bf16, refused by name later, if there is none."""
    has = [name for name in job.runtime.precisions if name != "bf16" or _has_bf16()]
    return has[0] if has else "bf16"


def _has_bf16() -> bool:
    """Whether the GPU has bfloat16 in hardware; PyTorch's emulation is slower than float32."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def load_model(
    folder: Path,
    job: ResolvedJob,
    device: Device,
    world: World,
    former: Path | None = None,
    *,
    longest: int | None = None,
) -> Any:
    """The model to train, the same in every process: with all methods but sft a PeftModel.

    Its adapter is new, or the one in `former` if the job continues one. `longest` is the longest sequence of the data in
    tokens, if it is known. FSDP2 spreads the model over all processes unless each of them can hold it (model/placement.py).

    Raises:
        StageFailure: BadInput, if lora.targetModules names what the model does not have, or the method is unknown.
    """
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  seconds
    from transformers.utils import logging  # noqa: PLC0415

    if job.method not in (names := [method.name for method in METHODS]):
        raise bad_input(f"method: this trainer has {', '.join(names)} (got {job.method})")
    is_whole = job.method == "sft"
    # A progress bar per shard is noise in a log.
    logging.disable_progress_bar()
    quantization = quantization_options(job, device.torch_device, device.weights)
    base, loaded = AutoModelForCausalLM.from_pretrained(
        folder,
        # Trained parameters stay in float32, because bfloat16 cannot represent updates as small as a step's.
        dtype=torch.float32 if is_whole else device.weights,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=job.runtime.trust_remote_code,
        output_loading_info=True,
        **quantization,
    )
    check_loaded(folder, loaded["missing_keys"], ())
    ways = Family.of(base.config.model_type).ways
    has_kernel = device.torch_device.type != "cuda" or device.is_autocast
    # In float32 a GPU has no kernel for bounds, and every other way is faster than records in turn.
    if "bounds" in ways and (has_kernel or ways == ("bounds",)):
        take_bounds(base)
    if quantization:
        hold_weights_still(base)  # It is on its device already and may not be moved.
    model = base if is_whole else _with_adapter(base, job, former)
    if job.training.gradient_checkpointing:
        base.activation_checkpointing_enable()
    if is_whole_everywhere(folder, job, device.torch_device, world, longest=longest):
        if not quantization:
            model.to(device.torch_device)
        world.copy_first(list(trained_parameters(model).values()))
        return model
    from tuneyard_trainer.model.sharding import shard  # noqa: PLC0415  one process needs none of it

    shard(model, base, world, gathered_as=torch.bfloat16 if is_whole and device.is_autocast else None)
    return model


def _with_adapter(base: Any, job: ResolvedJob, former: Path | None) -> Any:
    if job.adapter:
        return with_former_adapter(base, former, job)
    from peft import get_peft_model  # noqa: PLC0415  seconds

    torch.manual_seed(job.training.seed)
    config = build_adapter_config(base, job)
    with peft_is_strict():
        model = get_peft_model(base, config)
    if job.p_tuning is not None:
        make_prompts_exact(model)
    return model


def trained_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained by name, in a fixed order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_tuned(model: Any, base: Path, folder: Path, stored: StoredBase, world: World) -> list[str]:
    """Saves the adapter in PEFT's layout, or the whole model; every process must call it.

    Replaces what an interrupted run may have left. What is returned are warnings of tensors of the base model that are lost.
    """
    tensors = {}
    is_adapter = hasattr(model, "peft_config")
    # A model has parameters that never train too, such as the state that HRM begins with.
    for name, parameter in (
        trained_parameters(model) if is_adapter else dict(model.named_parameters())
    ).items():
        tensor = whole(parameter.detach())
        if world.is_first:
            tensors[name] = tensor.cpu()
    if not world.is_first:
        return []
    shutil.rmtree(folder, ignore_errors=True)
    with durable.folder_being_written(folder) as temporary:
        if is_adapter:
            _write_adapter(model, tensors, temporary, stored)
            return []
        _write_model(model, tensors, _kept_buffers(model), base, temporary)
        return keep_unread(model, base, temporary)


def _write_adapter(model: Any, tensors: dict[str, torch.Tensor], folder: Path, stored: StoredBase) -> None:
    from peft import get_peft_model_state_dict  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    state = get_peft_model_state_dict(model, state_dict=tensors, save_embedding_layers=False)
    config = model.peft_config["default"].to_dict() | {
        "inference_mode": True,
        "base_model_name_or_path": stored.repo or stored.name,
        "revision": stored.commit or stored.revision,
    }
    content = json.dumps(config, indent=2, sort_keys=True, default=_plain)
    (folder / ADAPTER_CONFIG).write_text(content + "\n", encoding="utf-8")
    contiguous = {name: tensor.contiguous() for name, tensor in sorted(state.items())}
    save_file(contiguous, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def _kept_buffers(model: Any) -> dict[str, torch.Tensor]:
    """What belongs to a model's state and is not trained, such as the experts' correction of DeepSeek V3."""
    state = set(model.state_dict())
    return {name: buffer.detach().cpu() for name, buffer in model.named_buffers() if name in state}


def _write_model(
    model: Any, tensors: dict[str, torch.Tensor], kept: dict[str, torch.Tensor], base: Path, folder: Path
) -> None:
    """Writes the weights in the base model's type and what is kept in its own, with configuration and tokenizer unchanged."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    name = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    state = kept | {key: tensor.to(getattr(torch, name)) for key, tensor in tensors.items()}
    model.save_pretrained(folder, state_dict=state, max_shard_size="5GB")
    keep_model_files(base, folder)


def keep_model_files(base: Path, folder: Path) -> None:
    """Copies what goes with a model's weights, such as configuration and tokenizer, unchanged."""
    for path in base.iterdir():
        if is_model_file(path.name) and not path.name.endswith((".safetensors", ".index.json")):
            shutil.copyfile(path, folder / path.name)


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)
