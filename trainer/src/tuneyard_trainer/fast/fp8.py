# SPDX-License-Identifier: Apache-2.0
"""A frozen weight in FP8 (e4m3), with one float32 scale for each row, and products with it.

A weight is held twice, by its rows for the forward pass and by its columns for the gradient of the input, so that a
product always has one scale for each of its own rows and columns. Both together are as large as the weight in bfloat16.
The adapter's part is added to the product where it is made, unrounded.
"""

from collections.abc import Sequence
from functools import cache, reduce

import torch
from torch.nn import functional

E4M3 = torch.float8_e4m3fn
MULTIPLE = 16
"""Both sides of a weight must be multiples of it."""
_LARGEST = 448.0
"""Largest number of e4m3."""
_LEAST_SCALE = 1e-12
_MOST_PARTS = 2
"""Most parts of a product's first operand: they need not be put together then, which would cost a pass over them."""
_HOPPER = 9
"""Compute capability for which the kernel is written."""

Tensors = Sequence[torch.Tensor]
HELD = 4
"""Tensors of a weight."""
Held = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""A weight [out, in]: its rows [out, in] and their scales [out, 1], its columns [in, out] and their scales [in, 1]."""


def quantize_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest numbers of e4m3 to x [rows, n] over its scales, and the scales, float32 [rows, 1]."""
    scales = _scales(x.abs().amax(-1, keepdim=True))
    return (x.float() / scales).to(E4M3), scales


def quantize_together(parts: Tensors) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Quantizes the parts side by side; they are put together where a product can't take them as they are."""
    largest = [part.abs().amax(-1, keepdim=True) for part in parts]
    scales = _scales(reduce(torch.maximum, largest))
    values = [(part.float() / scales).to(E4M3) for part in parts]
    is_taken = len(values) <= _MOST_PARTS and not any(part.shape[1] % MULTIPLE for part in values)
    return (values if is_taken else [torch.cat(values, 1)]), scales


def hold(weight: torch.Tensor) -> Held:
    """A weight [out, in] as the products of this module take it."""
    return (*quantize_rows(weight), *quantize_rows(weight.t().contiguous()))


class Fp8Linear(torch.nn.Module):  # type: ignore[misc]
    """A frozen linear layer with its weight in FP8, for callers of the plain model: each makes the numbers anew."""

    def __init__(self, rows: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Holds rows [out, in] in e4m3, and their scales [out, 1]."""
        super().__init__()
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    @property
    def weight(self) -> torch.Tensor:
        """The numbers that are held, in float32 [out, in]. PEFT reads here on which device an adapter belongs."""
        return self.rows.float() * self.scales

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output, [..., out], for x [..., in]; x itself is not rounded."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.linear(x, self.weight.to(x.dtype), bias)


torch.library.define(
    "tuneyard::fp8_product",
    "(Tensor[] xs, Tensor x_scales, Tensor weight, Tensor weight_scales, Tensor u, Tensor v) -> Tensor",
)


@torch.library.impl("tuneyard::fp8_product", "default")  # type: ignore[untyped-decorator]
def _product(xs: Tensors, *others: torch.Tensor) -> torch.Tensor:
    x_scales, weight, weight_scales, u, v = others
    device = weight.device
    if device.type != "cuda":
        made = (torch.cat([x.float() for x in xs], 1) @ weight.float().t()) * x_scales * weight_scales.t()
        return (made + u.float() @ v.float().t()).to(u.dtype)
    xs, u, v = [x.contiguous() for x in xs], u.contiguous(), v.contiguous()
    if _has_kernel(device.index):
        from tuneyard_trainer.fast.fp8_kernel import launch  # noqa: PLC0415  triton, which a CPU may lack

        return launch(xs, x_scales, weight, weight_scales, u, v)
    scales = {"scale_a": x_scales.contiguous(), "scale_b": weight_scales.reshape(1, -1)}
    whole = torch.cat(list(xs), 1)
    # Its public name takes more arguments for the same.
    y = torch._scaled_mm(whole, weight.t(), **scales, out_dtype=u.dtype, use_fast_accum=True)  # noqa: SLF001
    return y.addmm_(u, v.t()) if u.shape[1] else y


@torch.library.register_fake("tuneyard::fp8_product")  # type: ignore[untyped-decorator]
def _(xs: Tensors, *others: torch.Tensor) -> torch.Tensor:
    _, weight, _, u, _ = others
    return u.new_empty(xs[0].shape[0], weight.shape[0])


def product(x: tuple[Tensors, torch.Tensor], weight: Tensors, adapter: Tensors) -> torch.Tensor:
    """X weight^T, times the scales of both, plus u v^T: [T, out], in the type of u.

    `x` [T, in], as one or two parts side by side, and `weight` [out, in] are e4m3, their scales float32 [T, 1] and
    [out, 1]; u is [T, r] and v [out, r], where r may be 0. A CPU computes in float32 what a GPU does by tensor cores.
    """
    made: torch.Tensor = torch.ops.tuneyard.fp8_product(*x, *weight, *adapter)
    return made


@cache
def _has_kernel(device: int) -> bool:
    return bool(torch.cuda.get_device_capability(device)[0] == _HOPPER)


def _scales(largest: torch.Tensor) -> torch.Tensor:
    return (largest.float() / _LARGEST).clamp(min=_LEAST_SCALE)
