# SPDX-License-Identifier: Apache-2.0
"""Linear layers that read the same input, as one product, with a LoRA adapter beside each.

For layer i with frozen weight W and factors A [r, in] and B [out, r]:  y = x W^T + scale (x A^T) B^T.
The factors are kept in float32 and used in the weights' type. Autograd would keep the input once for every layer, in
float32 where the adapter casts it; written out here, it is kept once for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

Factors = tuple[torch.Tensor | None, ...]
"""A and B of each layer in turn; None for a layer without an adapter."""
Arguments = tuple[torch.Tensor, torch.Tensor | None, tuple[int, ...], float, Factors]
"""The fields of a Projection in their order: compiled functions read tuples faster than objects."""


@dataclass(frozen=True)
class Projection:
    """The tensors of layers that are one product."""

    weight: torch.Tensor
    """[sum of outputs, in], frozen."""
    bias: torch.Tensor | None
    """[sum of outputs], frozen."""
    ends: tuple[int, ...]
    """Where each layer's outputs end."""
    factors: Factors
    scale: float

    def arguments(self) -> Arguments:
        """What `project` takes besides its input. Its numbers are equal for all layers of a model."""
        return (self.weight, self.bias, self.ends, self.scale, self.factors)


def project(x: torch.Tensor, arguments: Arguments) -> tuple[torch.Tensor, ...]:
    """The output of each layer, [T, out], for x [T, in]."""
    weight, bias, ends, scale, factors = arguments
    outputs: tuple[torch.Tensor, ...] = _Adapted.apply(x, weight, bias, ends, scale, *factors)
    return outputs


def merge(linears: Sequence[torch.nn.Linear]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of all layers as one tensor each, of which theirs become views: nothing is held twice."""
    weight = _merged([linear.weight for linear in linears])
    has_bias = linears[0].bias is not None
    return weight, _merged([linear.bias for linear in linears]) if has_bias else None


def _merged(parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    if len(parameters) == 1:
        return parameters[0].detach()
    whole = torch.cat([parameter.detach() for parameter in parameters])
    for parameter, part in zip(parameters, whole.split([len(each) for each in parameters]), strict=True):
        parameter.data = part
    return whole


class _Adapted(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(  # noqa: PLR0917  autograd passes no keywords
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        ends: tuple[int, ...],
        scale: float,
        *factors: torch.Tensor | None,
    ) -> tuple[torch.Tensor, ...]:
        y = torch.nn.functional.linear(x, weight, bias)
        a, b = _used(factors, scale, weight.dtype)
        down = x @ a.t() if a is not None else None
        outputs = []
        at = 0
        for part, up in zip(_split(y, ends), b, strict=True):
            if up is None or down is None:
                outputs.append(part)
            else:
                outputs.append(part + down[:, at : at + up.shape[1]] @ up.t())
                at += up.shape[1]
        ctx.save_for_backward(x, weight, down, a, *b)
        ctx.scale = scale
        return tuple(outputs)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, down, a, *b = ctx.saved_tensors
        by_input = (gradients[0] if len(gradients) == 1 else torch.cat(gradients, 1)) @ weight
        if a is None:
            return (by_input, None, None, None, None, *(None for _ in range(2 * len(b))))
        adapted = [(g, up) for g, up in zip(gradients, b, strict=True) if up is not None]
        by_down = torch.cat([g @ up for g, up in adapted], 1)
        by_a = (by_down.t() @ x).float()
        by_factors: list[torch.Tensor | None] = []
        at = 0
        for g, up in zip(gradients, b, strict=True):
            if up is None:
                by_factors += [None, None]
                continue
            end = at + up.shape[1]
            by_factors += [by_a[at:end], (g.t() @ down[:, at:end]).float() * ctx.scale]
            at = end
        return (by_input + by_down @ a, None, None, None, None, *by_factors)


def _used(
    factors: Factors, scale: float, dtype: torch.dtype
) -> tuple[torch.Tensor | None, list[torch.Tensor | None]]:
    """All A as one tensor, and each B times the scale, in the type of the products."""
    a = [each.to(dtype) for each in factors[::2] if each is not None]
    b = [None if each is None else (each * scale).to(dtype) for each in factors[1::2]]
    return (torch.cat(a) if a else None), b


def _split(whole: torch.Tensor, ends: tuple[int, ...]) -> list[torch.Tensor]:
    return [whole[:, start:end] for start, end in zip((0, *ends), ends, strict=False)]
