# SPDX-License-Identifier: Apache-2.0
"""Data parallel training: torchrun starts the processes, this module is what they share.

Each process takes every n-th micro batch of the global batch. Losses are already divided by the learned tokens of
the whole global batch, so gradients are simply summed.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class World:
    """This process among all of them; of one process, every operation does nothing."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and tells progress."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """`values` summed over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Gradients summed over all processes as one message; a process without a micro batch adds zeros."""
        if self.size == 1:
            return
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        dist.all_reduce(flat)
        for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype)


@contextmanager
def joined_world(device: torch.device) -> Iterator[World]:
    """Joins the processes that torchrun has started; one process alone needs nothing."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    world = World(int(os.environ["RANK"]), size)
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if is_cuda else "gloo")
    try:
        yield world
    finally:
        dist.destroy_process_group()
