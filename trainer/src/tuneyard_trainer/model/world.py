# SPDX-License-Identifier: Apache-2.0
"""The processes of one training, which torchrun starts, and their collective operations.

Each process takes every n-th micro batch of the global batch. It holds every n-th part of the model (FSDP2), or all of
it. Spread, a forward pass gathers parameters from all processes: all of them run the same number of passes, or all wait.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

T = TypeVar("T")
N = TypeVar("N", bound=torch.Tensor)

_MESSAGE = 2**26
"""Most numbers of tensors that are sent together; a larger one is sent alone."""

_SILENCE = timedelta(minutes=15)
"""How long a process waits for the others before it gives up."""


@dataclass(frozen=True)
class World:
    """This process among all of them; with a single process every operation does nothing."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Device of the tensors that are sent: NCCL sends only memory of a GPU."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """`values` summed over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def begin_sum(self, values: torch.Tensor) -> Callable[[], None]:
        """Begins to sum `values` over all processes, in place; the function that it returns waits for the end.

        A GPU goes on with its other work meanwhile, and only its later work waits.
        """
        work = dist.all_reduce(values, async_op=True)

        def wait() -> None:
            work.wait()

        return wait

    def copy_first(self, tensors: Sequence[torch.Tensor]) -> None:
        """Gives tensors of one type, which all processes have whole, the values of the first process."""
        for some in in_messages(tensors, _MESSAGE) if self.size > 1 else ():
            together = torch.cat([tensor.detach().flatten() for tensor in some])
            dist.broadcast(together, 0)
            spread_out(together, some)

    def is_any(self, flag: object) -> bool:
        """Whether `flag` is true in some process."""
        if self.size == 1:
            return bool(flag)
        return bool(self.sum(torch.tensor(float(bool(flag)), device=self.device)) > 0)

    def gather(self, value: T) -> list[T]:
        """Every process's value, the first process's first."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def of_first(self, value: T) -> T:
        """The first process's value."""
        return self.gather(value)[0]


def in_messages(tensors: Sequence[N], most: int) -> Iterator[list[N]]:
    """The tensors in turn, as few at once as have `most` numbers together; a larger one is alone."""
    some: list[N] = []
    for tensor in tensors:
        if some and sum(each.numel() for each in some) + tensor.numel() > most:
            yield some
            some = []
        some.append(tensor)
    if some:
        yield some


def spread_out(together: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
    """Copies the numbers of a message back into the tensors that it was made of."""
    parts = together.split([tensor.numel() for tensor in tensors])
    with torch.no_grad():
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


@contextmanager
def joined_world(device: torch.device) -> Iterator[World]:
    """Joins the processes that torchrun has started; one process alone needs nothing."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device=device)
        return
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if is_cuda else "gloo", timeout=_SILENCE)
    yield World(int(os.environ["RANK"]), size, device)
    # Only after success: a failing process must not wait here for processes that wait for it.
    dist.destroy_process_group()


def is_loss_of_another(error: BaseException) -> bool:
    """Whether `error` means that another process of the training is gone, not that this one failed."""
    if isinstance(error, (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)):
        return True
    # gloo raises plain errors: for connections that were closed or reset, and for timeouts.
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "/gloo/" in text or "[Gloo]" in text or "onnection closed by" in text
    )


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a parameter in this process; a tensor that is not sharded is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A parameter gathered from all processes; every one of them must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_spread(tensor: torch.Tensor) -> bool:
    """Whether each process has a part of a parameter."""
    return isinstance(tensor, DTensor)


def rows_held(tensor: torch.Tensor, world: World) -> tuple[int, int]:
    """First row and end of this process's part of a parameter."""
    return rows_of_share(tensor, world) if is_spread(tensor) else (0, tensor.shape[0])


def rows_of_share(tensor: torch.Tensor, world: World) -> tuple[int, int]:
    """First row and end of this process's share of a parameter, whether it holds more or not.

    FSDP2 cuts the first dimension as torch.chunk does: equal parts, the last ones shorter or empty.
    """
    rows = tensor.shape[0]
    part = -(-rows // world.size)
    return min(world.rank * part, rows), min((world.rank + 1) * part, rows)
