# SPDX-License-Identifier: Apache-2.0
"""One of several processes over which a model is spread by FSDP2, and which computes losses by the fast path."""

import os
from pathlib import Path
from typing import Any

import torch
from tuneyard_trainer.fast.path import FastPath
from tuneyard_trainer.model.loading import trained_parameters
from tuneyard_trainer.model.sharding import shard
from tuneyard_trainer.model.world import World, is_spread, joined_world, whole

from support.fast_models import LLAMA, WIDE, base_of, batch_of, fast_loss, model_of

ROWS = [[[0, 1, 2], [3, 4]], [[5], [2, 3]], [[1, 5]], [[3], [0, 2]]] * 2
"""Records of each micro batch; processes take them in turn."""
WHOLE = "an adapter, its base model in each process"
CASES = {
    WHOLE: (False, "Llama", LLAMA, {}),
    "an adapter": (False, "Llama", LLAMA | {"attention_bias": True}, {}),
    "an adapter, recomputed": (False, "Llama", LLAMA, {"is_recomputing": True}),
    "a whole model": (True, "Qwen3", WIDE | {"tie_word_embeddings": True}, {}),
    "a whole model, recomputed": (True, "Llama", LLAMA, {"is_recomputing": True}),
}
STEPS = 2


def trained(case: str, world: World) -> dict[str, Any]:
    """Losses of each step by rows, and the parameters after the last one."""
    is_whole, name, options, how = CASES[case]
    model = base_of(name, options) if is_whole else model_of(name, options)
    base = model if is_whole else model.get_base_model()
    if how.get("is_recomputing"):
        base.activation_checkpointing_enable()
    parameters = trained_parameters(model)
    if case == WHOLE:
        if not world.is_first:
            for parameter in parameters.values():
                parameter.data.zero_()
        world.copy_first(list(parameters.values()))
    elif world.size > 1:
        shard(model, base, world, gathered_as=None)
    fast = FastPath(model, longest=64, is_compiled=False, **how)
    if world.size > 1 and case != WHOLE:
        # FSDP2 has put others in their place.
        parameters = trained_parameters(model)
    optimizer = torch.optim.SGD(parameters.values(), lr=0.01)
    mine = ROWS[world.rank :: world.size]
    losses = list[list[float]]()
    for _ in range(STEPS):
        losses.append([])
        for rows in mine:
            loss = fast_loss(fast, batch_of(rows))
            (loss / len(mine)).backward()
            losses[-1].append(float(loss.detach()))
        world.average([parameter.grad for parameter in parameters.values() if not is_spread(parameter)])
        optimizer.step()
        optimizer.zero_grad()
    return {"losses": losses, **{key: whole(value.detach()) for key, value in parameters.items()}}


def main(rank: int, size: int, port: int, folder: Path) -> None:
    """Trains all cases as one of `size` processes, and keeps the results in `folder`."""
    place = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    torch.set_num_threads(1)
    with joined_world(torch.device("cpu")) as world:
        for case in CASES:
            torch.save(trained(case, world), folder / f"{case}-{rank}.pt")
