# SPDX-License-Identifier: Apache-2.0
"""A product in FP8 that adds the adapter's part before its result is written, for GPUs of the Hopper generation.

Written by itself, the adapter's part would cost a second pass over the result. Triton compiles the kernel: each
multiprocessor runs one program, which makes tiles of the result one after the other (measured on an H200, a program for
each tile makes training 8 % slower), and the tensor memory accelerator moves their operands.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

_ROWS, _COLUMNS, _DEPTH = 128, 256, 128
"""Rows and columns of a tile of the result, and how much of both operands is multiplied at a time."""
_GROUP = 8
"""Rows of tiles that are made together, so that their operands are still in the cache."""
_PART = 16
"""How much of the adapter's rank is multiplied at a time: the least that tensor cores take."""


@triton.jit  # type: ignore[untyped-decorator]
def _product(  # type: ignore[no-untyped-def]  # noqa: ANN202, PLR0917  Triton's arguments have no types
    x,  # noqa: ANN001
    second,  # noqa: ANN001
    x_scales,  # noqa: ANN001
    weight,  # noqa: ANN001
    weight_scales,  # noqa: ANN001
    u,  # noqa: ANN001
    v,  # noqa: ANN001
    y,  # noqa: ANN001
    rows,  # noqa: ANN001
    columns,  # noqa: ANN001
    depth,  # noqa: ANN001
    second_depth,  # noqa: ANN001
    rank: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
    tile_depth: tl.constexpr,
    group: tl.constexpr,
    part: tl.constexpr,
):
    down, across = tl.cdiv(rows, tile_rows), tl.cdiv(columns, tile_columns)
    for tile in tl.range(tl.program_id(0), down * across, tl.num_programs(0)):
        first = (tile // (group * across)) * group
        height = min(down - first, group)
        row = (first + (tile % (group * across)) % height) * tile_rows
        column = ((tile % (group * across)) // height) * tile_columns
        i, j, r = row + tl.arange(0, tile_rows), column + tl.arange(0, tile_columns), tl.arange(0, part)
        # What the end needs is on its way while the large products are made: 5 % faster, measured on an H200.
        by_row = tl.load(x_scales + i, mask=i < rows, other=0.0)
        by_column = tl.load(weight_scales + j, mask=j < columns, other=0.0)
        left = tl.load(u + i[:, None] * rank + r, mask=(i < rows)[:, None] & (r < rank), other=0.0)
        right = tl.load(v + j[:, None] * rank + r, mask=(j < columns)[:, None] & (r < rank), other=0.0)
        made = tl.zeros((tile_rows, tile_columns), tl.float32)
        for k in range(tl.cdiv(depth, tile_depth)):
            made = tl.dot(x.load([row, k * tile_depth]), weight.load([column, k * tile_depth]).T, made)
        for k in range(tl.cdiv(second_depth, tile_depth)):
            right_tile = weight.load([column, depth + k * tile_depth])
            made = tl.dot(second.load([row, k * tile_depth]), right_tile.T, made)
        made = made * by_row[:, None] * by_column[None, :]
        if rank > 0:
            made = tl.dot(left, right.T, made)
        for start in tl.static_range(part, rank, part):
            r = start + tl.arange(0, part)
            left = tl.load(u + i[:, None] * rank + r, mask=(i < rows)[:, None] & (r < rank), other=0.0)
            right = tl.load(v + j[:, None] * rank + r, mask=(j < columns)[:, None] & (r < rank), other=0.0)
            made = tl.dot(left, right.T, made)
        y.store([row, column], made.to(y.dtype))


def launch(xs: Sequence[torch.Tensor], *others: torch.Tensor) -> torch.Tensor:
    """Computes `fp8.product` of contiguous tensors on one device; u and v are of bfloat16."""
    x_scales, weight, weight_scales, u, v = others
    rows, (columns, rank) = len(xs[0]), v.shape
    y = torch.empty(rows, columns, dtype=u.dtype, device=u.device)
    tiles = triton.cdiv(rows, _ROWS) * triton.cdiv(columns, _COLUMNS)
    _product[(min(tiles, _multiprocessors(u.device)),)](
        TensorDescriptor.from_tensor(xs[0], [_ROWS, _DEPTH]),
        TensorDescriptor.from_tensor(xs[-1], [_ROWS, _DEPTH]),
        x_scales,
        TensorDescriptor.from_tensor(weight, [_COLUMNS, _DEPTH]),
        weight_scales,
        u,
        v,
        TensorDescriptor.from_tensor(y, [_ROWS, _COLUMNS]),
        rows,
        columns,
        xs[0].shape[1],
        xs[1].shape[1] if len(xs) > 1 else 0,
        rank,
        _ROWS,
        _COLUMNS,
        _DEPTH,
        _GROUP,
        _PART,
        num_warps=8,
        num_stages=3,
    )
    return y


def _multiprocessors(device: torch.device) -> int:
    """Those of a GPU; a CPU stands for few, so that the interpreter makes several tiles in one program too."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2
