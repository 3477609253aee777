# SPDX-License-Identifier: Apache-2.0
"""Linear layers that read the same input, whose own weights are trained.

The weights are kept in float32 and used in the input's type. They are cast for each product anew, which costs less than
keeping a second copy of all of them; their gradients come back in float32.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tuneyard_trainer.fast.projection import product

TrainedArguments = tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Trained:
    """The parameters of layers that read the same input."""

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
        ctx.save_for_backward(x, *weights)
        ctx.has_bias = bool(biases)
        outputs = tuple(product([x], [weight.t()]) for weight in weights)
        if not biases:
            return outputs
        return tuple(y + bias.to(y.dtype) for y, bias in zip(outputs, biases, strict=True))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        by_weights = [(g.t() @ x).to(weights[0].dtype) for g in gradients]
        by_biases = [g.sum(0).to(weights[0].dtype) for g in gradients] if ctx.has_bias else []
        return (product(gradients, weights), None, *by_weights, *by_biases)
