# SPDX-License-Identifier: Apache-2.0
"""One of several processes that hold a model, or parts of it by FSDP2, and compute losses by the fast path."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from tuneyard_trainer.fast.path import FastPath
from tuneyard_trainer.model.loading import trained_parameters
from tuneyard_trainer.model.sharding import shard
from tuneyard_trainer.model.world import World, joined_world, whole
from tuneyard_trainer.training.gradients import Gradients

from support.fast_models import LLAMA, WIDE, base_of, batch_of, fast_loss, model_of

ROWS = [[[0, 1, 2], [3, 4]], [[5], [2, 3]], [[1, 5]], [[3], [0, 2]]] * 2
"""Records of each micro batch; processes take them in turn."""
WHOLE = {"an adapter, its base model in each process", "a whole model in each process"}
CASES = {
    "an adapter, its base model in each process": (False, "Llama", LLAMA, {}),
    "a whole model in each process": (True, "Qwen3", WIDE | {"tie_word_embeddings": True}, {}),
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
    if case in WHOLE:
        if not world.is_first:
            for parameter in parameters.values():
                parameter.data.zero_()
        world.copy_first(list(parameters.values()))
    elif world.size > 1:
        shard(model, base, world, gathered_as=None)
    fast = FastPath(model, longest=64, is_compiled=False, **how)
    if world.size > 1 and case not in WHOLE:
        # FSDP2 has put others in their place.
        parameters = trained_parameters(model)
    gradients = Gradients(list(parameters.values()) if case in WHOLE else [], world)
    # FSDP2 averages.
    counted = 1 if case in WHOLE else world.size
    optimizer = torch.optim.SGD(parameters.values(), lr=0.01)
    mine = ROWS[world.rank :: world.size]
    losses = list[list[float]]()
    for _ in range(STEPS):
        losses.append([])
        for at, rows in enumerate(mine):
            loss = fast_loss(fast, batch_of(rows))
            with gradients.summed() if at == len(mine) - 1 else nullcontext():
                (loss * counted / len(ROWS)).backward()
            losses[-1].append(float(loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
    return {"losses": losses, **{key: whole(value.detach()) for key, value in parameters.items()}}


def summed_unequally(world: World) -> list[torch.Tensor]:
    """Gradients of three parameters after two passes; each process but the first uses the middle one, and none the last."""
    draw = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(*shape, generator=draw)) for shape in ((3, 2), (4,), (5, 1))]
    gradients = Gradients(parameters, world)
    for number in range(2):
        loss = (parameters[0] * (world.rank + 1 + number)).sum()
        if world.rank:
            loss += parameters[1].sum()
        with gradients.summed() if number else nullcontext():
            loss.backward()
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def main(rank: int, size: int, port: int, folder: Path) -> None:
    """Trains all cases as one of `size` processes, and keeps the results in `folder`."""
    place = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    torch.set_num_threads(1)
    with joined_world(torch.device("cpu")) as world:
        for case in CASES:
            torch.save(trained(case, world), folder / f"{case}-{rank}.pt")
        torch.save(summed_unequally(world), folder / f"unequal-{rank}.pt")
