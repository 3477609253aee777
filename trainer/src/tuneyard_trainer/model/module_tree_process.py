# SPDX-License-Identifier: Apache-2.0
"""The process of `module_tree`: builds a model on PyTorch's meta device, without weights, and says what it finds."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging
from tuneyard_api.methods import LORA_METHODS
from tuneyard_api.model_shape import tensors_in
from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_trainer.fast.structure import UnknownStructureError, check_structure
from tuneyard_trainer.model.adapted_layers import said_of_unreached, target_modules, target_parameters
from tuneyard_trainer.model.adapter_config import scaled_modules
from tuneyard_trainer.model.expert_adapters import why_unread
from tuneyard_trainer.model.weights import check_loaded
from tuneyard_trainer.pod.failures import StageFailure, bad_input


def check_modules(job: ResolvedJob, folder: Path) -> list[str]:
    """What `module_tree.check_module_tree` answers, in this process.

    Raises:
        StageFailure: BadInput, if transformers can't build the model, or an adapter can't be put on it.
    """
    trusted = job.runtime.trust_remote_code
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trusted)
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)
    except Exception as error:  # noqa: BLE001  a configuration can be wrong in any way
        words = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise bad_input(
            f"{folder / 'config.json'}: transformers can't build this model: {words}; try another revision, or a model of"
            " another family"
        ) from None
    model = _with_names_of_weights(folder, trust_remote_code=trusted)
    if job.quantization == "fp8":
        _check_fp8(model, job)
    if job.method == "ia3":
        scaled_modules(model)
    if job.method not in LORA_METHODS:
        return []
    tensors = [] if job.adapter else target_parameters(model, job)
    if why := why_unread(model, config, tensors_in(folder), job, tensors):
        if job.adapter_server == "vllm":
            raise bad_input(f"{why}; try a server of another kind, or serve.disabled: true to publish only")
        return [f"if vLLM is to serve the adapter: {why}"]
    if job.adapter:
        return []
    if tensors:
        return [f"{', '.join(tensors)} of all experts get an adapter by PEFT's target_parameters"]
    unreached = said_of_unreached(model, target_modules(model, job))
    return [unreached] if unreached and job.lora.target_modules is None else []


def _with_names_of_weights(folder: Path, *, trust_remote_code: bool) -> Any:
    """The model with the weights of its files on the meta device, for which no more than their headers is read."""
    logging.set_verbosity_error()
    model, loaded = AutoModelForCausalLM.from_pretrained(
        folder,
        device_map={"": "meta"},
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    check_loaded(folder, loaded["missing_keys"], [name for name, *_ in loaded["mismatched_keys"]])
    return model


def _check_fp8(model: Any, job: ResolvedJob) -> None:
    """Only the fast path has FP8: what it will not know by the model's parts is refused here, before a GPU is asked for."""
    try:
        check_structure(model, job.training.max_sequence_length)
    except UnknownStructureError as unknown:
        raise bad_input(
            f"model.quantization: fp8 is trained by the fast path alone, and the model is not known to it: {unknown} (got"
            " fp8); try nf4, or leave it out"
        ) from None


def main() -> None:
    """Reads a job on standard input and writes one line of JSON."""
    job = ResolvedJob.model_validate_json(sys.stdin.read())
    try:
        said: dict[str, Any] = {"problem": None, "warnings": check_modules(job, Path(sys.argv[1]))}
    except StageFailure as failure:
        said = {"problem": str(failure), "warnings": []}
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
