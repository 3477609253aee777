# SPDX-License-Identifier: Apache-2.0
"""Causal attention inside of records that lie one after the other, without a mask of all pairs of tokens."""

from dataclasses import dataclass

import torch
from torch.nn import functional


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on `device`. A GPU is not waited for, which it is where memory may be moved."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@dataclass(frozen=True)
class Bounds:
    """Where records begin among the T tokens of a batch, whose rows lie one after the other."""

    edges: tuple[int, ...]
    """The first token of each record, and T. Padding at the end of a row is a record too."""
    on_device: torch.Tensor
    """The same as int32 [records + 1] where the batch is."""

    @classmethod
    def of(cls, edges: list[int], device: torch.device) -> "Bounds":
        """Bounds at these edges."""
        return cls(tuple(edges), sent(torch.tensor(edges, dtype=torch.int32), device))

    @property
    def longest(self) -> int:
        """Tokens of the longest record."""
        return max(end - start for start, end in zip(self.edges, self.edges[1:], strict=False))


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: Bounds,
    *,
    scale: float | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """Each token attends to itself and to earlier tokens of its own record: [T, heads, size].

    `query` is [T, heads, size]; `key` and `value` are [T, groups, size], and each group serves heads / groups heads.
    `window` limits how many tokens, its own included, a token looks back on.
    """
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and query.shape[-1] % 8 == 0:
        return _by_kernel((query, key, value), bounds, scale, window)
    parts = [
        _one_record(query[start:end], key[start:end], value[start:end], scale, window)
        for start, end in zip(bounds.edges, bounds.edges[1:], strict=False)
    ]
    return torch.cat(parts)


def attend_rows(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: int, *, scale: float | None = None
) -> torch.Tensor:
    """Does what `attend` does, for tokens that are `rows` rows of equal length with one record in each."""
    queries, keys, values = (
        each.view(rows, -1, *each.shape[1:]).transpose(1, 2) for each in (query, key, value)
    )
    attended = functional.scaled_dot_product_attention(
        queries, keys, values, is_causal=True, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return attended.transpose(1, 2).flatten(0, 1)


def _by_kernel(
    heads: tuple[torch.Tensor, ...], bounds: Bounds, scale: float | None, window: int | None
) -> torch.Tensor:
    from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: PLC0415  triton, which a CPU may lack
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415

    where = (bounds.on_device, bounds.on_device, bounds.longest, bounds.longest)
    back = (-1 if window is None else window - 1, 0)
    is_grouped = heads[0].shape[1] != heads[1].shape[1]
    # cuDNN's kernel for bounds gave infinite gradients in cuDNN 9.19; FlashAttention is measured.
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        made: torch.Tensor = varlen_attn(*heads, *where, scale=scale, window_size=back, enable_gqa=is_grouped)
    return made


def _one_record(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None, window: int | None
) -> torch.Tensor:
    """Attention of a single record, by what PyTorch has for every device and type."""
    length, groups = query.shape[0], query.shape[1] // key.shape[1]
    queries, keys, values = (each.transpose(0, 1)[None] for each in (query, key, value))
    mask = None
    if window is not None and window < length:
        pairs = torch.ones(length, length, dtype=torch.bool, device=query.device)
        mask = pairs.tril() & pairs.triu(1 - window)
    attended = functional.scaled_dot_product_attention(
        queries,
        keys.repeat_interleave(groups, 1),
        values.repeat_interleave(groups, 1),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
    )
    return attended[0].transpose(0, 1)
