# SPDX-License-Identifier: Apache-2.0
"""Linear layers that read the same input, as one product, with a LoRA adapter beside each.

For layer i with frozen weight W and factors A [r, in] and B [out, r]:  y = x W^T + scale (x A^T) B^T.
The factors are kept in float32 and used in the weights' type. Autograd would keep the input once for every layer, in
float32 where the adapter casts it; written out here, it is kept once for all of them. The frozen weight may be held in
FP8 (fast/fp8.py); then x and the gradient are rounded to FP8 for its products, and for nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tuneyard_trainer.fast import fp8
from tuneyard_trainer.fast.fp8 import Tensors

Factors = tuple[torch.Tensor | None, ...]
"""A and B of each layer in turn; None for a layer without an adapter."""
Frozen = tuple[torch.Tensor, ...]
"""All weights as one, [sum of outputs, in]; each layer's own, [out, in]; or what is held of one in FP8: see fp8.Held."""
Arguments = tuple[Frozen, torch.Tensor | None, tuple[int, ...], float, Factors]
"""The fields of a Projection in their order: compiled functions read tuples faster than objects."""


@dataclass(frozen=True)
class Projection:
    """The tensors of layers that are one product."""

    frozen: Frozen
    bias: torch.Tensor | None
    """[sum of outputs], frozen."""
    ends: tuple[int, ...]
    """Where each layer's outputs end."""
    factors: Factors
    scale: float

    def arguments(self) -> Arguments:
        """What `project` takes besides its input. Its numbers are equal for all layers of a model."""
        return (self.frozen, self.bias, self.ends, self.scale, self.factors)

    def in_fp8(self) -> "Projection":
        """The same with the frozen weight in FP8; this one's is not changed."""
        return replace(self, frozen=fp8.hold(self.frozen[0]))


def project(x: torch.Tensor, arguments: Arguments) -> tuple[torch.Tensor, ...]:
    """The output of each layer, [T, out], for x [T, in]."""
    frozen, bias, ends, scale, factors = arguments
    outputs: tuple[torch.Tensor, ...] = _Adapted.apply(x, bias, ends, scale, len(frozen), *frozen, *factors)
    return outputs


def merge(linears: Sequence[torch.nn.Linear]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of all layers as one tensor each, of which theirs become views: nothing is held twice."""
    weight = _merged([linear.weight for linear in linears])
    return weight, None if linears[0].bias is None else _merged([linear.bias for linear in linears])


def _merged(parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    if len(parameters) == 1:
        return parameters[0].detach()
    whole = torch.cat([parameter.detach() for parameter in parameters])
    for parameter, part in zip(parameters, whole.split([len(each) for each in parameters]), strict=True):
        parameter.data = part
    return whole


torch.library.define("tuneyard::product", "(Tensor[] xs, Tensor[] weights, Tensor u, Tensor v) -> Tensor")


@torch.library.impl("tuneyard::product", "default")  # type: ignore[untyped-decorator]
def _product(xs: Tensors, weights: Tensors, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    y = xs[0] @ weights[0].to(xs[0].dtype)
    more = [*zip(xs[1:], weights[1:], strict=True), *([(u, v.t())] if u.shape[1] else [])]
    for x, weight in more:
        # On a CPU, adding in place rounds more often in bfloat16.
        y = y.addmm_(x, weight.to(x.dtype)) if y.is_cuda else y + x @ weight.to(x.dtype)
    return y


@torch.library.register_fake("tuneyard::product")  # type: ignore[untyped-decorator]
def _(xs: Tensors, weights: Tensors, _u: torch.Tensor, _v: torch.Tensor) -> torch.Tensor:
    return xs[0].new_empty(xs[0].shape[0], weights[0].shape[1])


def product(xs: Tensors, weights: Tensors, adapter: Tensors | None = None) -> torch.Tensor:
    """The sum of x weight over all pairs, plus u v^T: [T, out], in the type of x.

    Each x is [T, in] and its weight [in, out]; u is [T, r] and v [out, r], where r may be 0.
    An operator of its own, because the compiler would copy the first product to add another one to it, and would keep
    copies of weights for the backward pass, also of those that are sharded.
    """
    u, v = adapter or (xs[0].new_empty(0, 0), xs[0].new_empty(0, 0))
    made: torch.Tensor = torch.ops.tuneyard.product(xs, weights, u, v)
    return made


class _Adapted(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(  # noqa: PLR0917  autograd passes no keywords
        ctx: Any,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        ends: tuple[int, ...],
        scale: float,
        held: int,
        *tensors: Any,
    ) -> tuple[torch.Tensor, ...]:
        frozen, factors = tensors[:held], tensors[held:]
        a, b = _used(factors, scale, x)
        down = x @ a.t()
        ctx.save_for_backward(x, down, a, *frozen, *b)
        ctx.scale, ctx.held = scale, held
        up = _side_by_side(b, ends, x)
        if held == fp8.HELD:
            made = [fp8.product(fp8.quantize_together([x]), frozen[:2], (down, up))]
        else:
            parts = up.split([len(weight) for weight in frozen])
            made = [
                product([x], [weight.t()], (down, part)) for weight, part in zip(frozen, parts, strict=True)
            ]
        if bias is not None:
            biases = bias.split([y.shape[1] for y in made])
            made = [y + part for y, part in zip(made, biases, strict=True)]
        return tuple(made if len(made) == len(ends) else _split(made[0], ends))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, down, a, *saved = ctx.saved_tensors
        frozen, b = saved[: ctx.held], saved[ctx.held :]
        adapted = [g @ up for g, up in zip(gradients, b, strict=True) if up is not None]
        by_down = torch.cat(adapted, 1) if adapted else down
        if ctx.held == fp8.HELD:
            by_input = fp8.product(fp8.quantize_together(gradients), frozen[2:], (by_down, a.t()))
        else:
            by_outputs = gradients if ctx.held == len(gradients) else [torch.cat(gradients, 1)]
            by_input = product(by_outputs, frozen, (by_down, a.t()))
        by_a = (by_down.t() @ x).float()
        by_factors: list[torch.Tensor | None] = []
        for g, up, (start, end) in zip(gradients, b, _ranks(b), strict=True):
            by_b = None if up is None else (g.t() @ down[:, start:end]).float() * ctx.scale
            by_factors += [None if up is None else by_a[start:end], by_b]
        return (by_input, None, None, None, None, *(None for _ in frozen), *by_factors)


def _used(
    factors: Sequence[torch.Tensor | None], scale: float, like: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """All A as one tensor, and each B times the scale, in the type of the products."""
    a = [each.to(like.dtype) for each in factors[::2] if each is not None]
    b = [None if each is None else (each * scale).to(like.dtype) for each in factors[1::2]]
    return (torch.cat(a) if a else like.new_empty(0, like.shape[1])), b


def _ranks(b: Sequence[torch.Tensor | None]) -> list[tuple[int, int]]:
    """Where the rank of each adapter begins and ends among all of them."""
    edges = [0]
    for up in b:
        edges.append(edges[-1] + (0 if up is None else up.shape[1]))
    return list(pairwise(edges))


def _side_by_side(
    b: Sequence[torch.Tensor | None], ends: tuple[int, ...], like: torch.Tensor
) -> torch.Tensor:
    """Every B at its layer's outputs and its own ranks, and zeros elsewhere: [sum of outputs, sum of ranks]."""
    ranks = _ranks(b)[-1][1]
    return torch.cat(
        [
            like.new_zeros(end - start, ranks) if up is None else functional.pad(up, (first, ranks - last))
            for up, (first, last), (start, end) in zip(b, _ranks(b), pairwise((0, *ends)), strict=True)
        ]
    )


def _split(whole: torch.Tensor, ends: tuple[int, ...]) -> list[torch.Tensor]:
    return [whole[:, start:end] for start, end in pairwise((0, *ends))]
