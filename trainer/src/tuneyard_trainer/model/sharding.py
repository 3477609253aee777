# SPDX-License-Identifier: Apache-2.0
"""Spreads a model over the processes of a training: FSDP2, layer by layer.

Each process holds an equal part of every parameter, its gradient and its optimizer state. A layer's parameters are
gathered just before it is needed and let go after it. Gradients come back averaged.
"""

from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from tuneyard_trainer.model.world import World


def shard(model: Any, base: Any, world: World, *, gathered_as: torch.dtype | None) -> None:
    """Spreads `model`, in place, over all processes and moves it to their devices.

    `base` is the transformers model inside, which names its layers' classes. `gathered_as` is the type that
    parameters travel and compute in; None: their own. Gradients are summed in float32 either way.
    """
    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(param_dtype=gathered_as, reduce_dtype=torch.float32)
    names = set(base._no_split_modules or ())  # noqa: SLF001  how transformers names its layers to FSDP
    for part in list(base.modules()):
        if type(part).__name__ in names:
            fully_shard(part, mesh=mesh, mp_policy=policy)
    # The outermost parameters are released after each pass too; otherwise the model would name gathered ones as its own.
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
