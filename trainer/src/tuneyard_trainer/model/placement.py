# SPDX-License-Identifier: Apache-2.0
"""Does each process hold all of the model, or does FSDP2 spread it? The plan asks the same (forecast/choice.py).

Where each GPU holds the model, processes tell each other the gradients of what is trained once a step and nothing else.
Spread, every layer travels twice for each micro batch.
"""

import json
from pathlib import Path

import torch
from tuneyard_api.forecast.choice import placed
from tuneyard_api.forecast.gpus import gpu_of
from tuneyard_api.forecast.memory import GIB
from tuneyard_api.forecast.work import work_of
from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_trainer.model.weights import shape_in
from tuneyard_trainer.model.world import World


def is_whole_everywhere(
    folder: Path, job: ResolvedJob, device: torch.device, world: World, *, longest: int | None
) -> bool:
    """Whether each process holds all of the model in `folder`; the same answer in all of them.

    A quantized model can't be spread. Another one is spread where memory is not known, as that of a CPU.
    """
    if world.size == 1 or job.quantization is not None:
        return True
    if device.type != "cuda":
        return False
    memory = min(world.gather(torch.cuda.get_device_properties(device).total_memory))
    shape = shape_in(folder, json.loads((folder / "config.json").read_text(encoding="utf-8")))
    if shape is None:
        return False
    gpu = gpu_of(torch.cuda.get_device_name(device), memory / GIB)
    return not placed(work_of(job, shape, longest=longest), gpu).is_spread
