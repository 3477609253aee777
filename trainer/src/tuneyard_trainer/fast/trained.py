# SPDX-License-Identifier: Apache-2.0
"""Linear layers that read the same input, as one product, whose own weights are trained.

The weights are kept in float32 and used in the input's type. They are cast for each product anew, which costs less than
keeping a second copy of all of them; their gradients come back in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

TrainedArguments = tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Trained:
    """The parameters of layers that are one product."""

    weights: tuple[torch.Tensor, ...]
    """[out, in] each."""
    biases: tuple[torch.Tensor, ...]
    """[out] each; none, if the layers have none."""

    def arguments(self) -> TrainedArguments:
        """What `project_trained` takes besides its input."""
        return (self.weights, self.biases)


def project_trained(x: torch.Tensor, arguments: TrainedArguments) -> tuple[torch.Tensor, ...]:
    """The output of each layer, [T, out], for x [T, in]."""
    weights, biases = arguments
    outputs: tuple[torch.Tensor, ...] = _Trained.apply(x, len(weights), *weights, *biases)
    return outputs


class _Trained(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, count: int, *parameters: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weights, biases = parameters[:count], parameters[count:]
        y = functional.linear(x, _used(weights, x), _used(biases, x) if biases else None)
        ctx.save_for_backward(x, *weights)
        ctx.has_bias = bool(biases)
        outputs: tuple[torch.Tensor, ...] = y.split([len(weight) for weight in weights], 1)
        return outputs

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        sizes = [len(weight) for weight in weights]
        by_output = gradients[0] if len(gradients) == 1 else torch.cat(gradients, 1)
        by_weights = (by_output.t() @ x).to(weights[0].dtype).split(sizes)
        by_biases = by_output.sum(0).to(weights[0].dtype).split(sizes) if ctx.has_bias else ()
        return (by_output @ _used(weights, x), None, *by_weights, *by_biases)


def _used(parameters: Sequence[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    return torch.cat([parameter.to(like.dtype) for parameter in parameters])
