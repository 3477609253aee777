# SPDX-License-Identifier: Apache-2.0
"""A decoder layer before and after its attention: two functions of tensors, compiled once and shared by all layers.

Attention is no part of them, so that where records begin never compiles anything anew.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from tuneyard_trainer.fast import projection
from tuneyard_trainer.fast.projection import Projection
from tuneyard_trainer.fast.trained import Trained, TrainedArguments, project_trained

Arguments = projection.Arguments | TrainedArguments
"""Arguments of layers that are one product: frozen ones with adapters, or trained ones."""


@dataclass(frozen=True)
class Norm:
    """RMSNorm: x / sqrt(mean(x^2) + eps) times the weight, or times 1 + weight."""

    eps: float
    plus_one: bool

    def __call__(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Normalizes over the last dimension."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        if self.plus_one:
            return (wide * (1.0 + weight.float())).to(x.dtype)
        return weight.to(x.dtype) * wide.to(x.dtype)


@dataclass(frozen=True)
class Layer:
    """The tensors of one layer."""

    first_norm: torch.Tensor
    second_norm: torch.Tensor
    head_norms: tuple[torch.Tensor, torch.Tensor] | None
    """Norms of queries and keys, [size] each."""
    qkv: Projection | Trained
    out: Projection | Trained
    gate_up: Projection | Trained
    down: Projection | Trained


@dataclass(frozen=True)
class Block:
    """What all layers of a model have in common."""

    heads: int
    groups: int
    """Heads of keys and values."""
    size: int
    """Size of a head."""
    norm: Norm
    head_norm: Norm | None
    activation: Callable[[torch.Tensor], torch.Tensor]

    def before(
        self,
        x: torch.Tensor,
        turns: tuple[torch.Tensor, torch.Tensor],
        norm: torch.Tensor,
        head_norms: tuple[torch.Tensor, torch.Tensor] | None,
        qkv: Arguments,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries [T, heads, size], and keys and values [T, groups, size], for x [T, hidden]."""
        parts = project(self.norm(x, norm), qkv)
        if len(parts) == 1:
            parts = parts[0].split([n * self.size for n in (self.heads, self.groups, self.groups)], 1)
        queries, keys, values = (part.reshape(len(x), -1, self.size) for part in parts)
        if self.head_norm is not None and head_norms is not None:
            queries, keys = self.head_norm(queries, head_norms[0]), self.head_norm(keys, head_norms[1])
        # As a view, the values that attention keeps would keep all of the product.
        return turn(queries, *turns), turn(keys, *turns), values.contiguous()

    def after(
        self,
        x: torch.Tensor,
        attended: torch.Tensor,
        norm: torch.Tensor,
        projections: tuple[Arguments, Arguments, Arguments],
    ) -> torch.Tensor:
        """The layer's output, [T, hidden], for its input x and what attention made of it, [T, heads, size]."""
        out, gate_up, down = projections
        x = x + project(attended.flatten(1), out)[0]
        parts = project(self.norm(x, norm), gate_up)
        gate, up = parts[0].chunk(2, 1) if len(parts) == 1 else parts
        return x + project(self.activation(gate) * up, down)[0]


def project(x: torch.Tensor, arguments: Arguments) -> tuple[torch.Tensor, ...]:
    """The output of each layer, [T, out], for x [T, in]."""
    if len(arguments) == 2:  # noqa: PLR2004  compiled functions read tuples faster than objects
        return project_trained(x, arguments)
    return projection.project(x, arguments)


def turn(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotary positions for x [T, heads, size]; `cosine` and `sine` are [T, 1, turned], turned <= size."""
    turned, rest = x[..., : cosine.shape[-1]], x[..., cosine.shape[-1] :]
    first, second = turned.chunk(2, -1)
    turned = turned * cosine + torch.cat((-second, first), -1) * sine
    return torch.cat((turned, rest), -1) if rest.shape[-1] else turned
