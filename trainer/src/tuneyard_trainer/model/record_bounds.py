# SPDX-License-Identifier: Apache-2.0
"""Gives a transformers model attention that is told where records begin, so that no mask of all pairs is made."""

from typing import Any

import torch

from tuneyard_trainer.fast.attention import Bounds, attend

_NAME = "tuneyard_records"


def take_bounds(base: Any) -> bool:
    """Makes the layers of `base` accept `bounds=`; False, and no change, if its family can't hand it on to them.

    A call without bounds is what transformers' own attention by PyTorch makes of it.
    """
    from transformers import AttentionInterface, AttentionMaskInterface  # noqa: PLC0415  seconds
    from transformers.masking_utils import sdpa_mask  # noqa: PLC0415

    has_dropout = bool(getattr(base.config, "attention_dropout", 0) or getattr(base.config, "attn_pdrop", 0))
    # What has eager attention alone computes more than PyTorch's attention does, such as sinks.
    is_plain = base._supports_attention_backend and base._supports_sdpa  # noqa: SLF001  how transformers tells
    if not is_plain or has_dropout:
        return False
    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    base.set_attn_implementation(_NAME)
    return True


def takes_bounds(model: Any) -> bool:
    """Whether the model's layers accept `bounds=`."""
    return bool(model.config._attn_implementation == _NAME)  # noqa: SLF001


def bounds_arguments(bounds: Bounds) -> dict[str, Any]:
    """The arguments of a model's forward pass that hand on `bounds`.

    A mask of four dimensions is passed on as it is; this one only keeps transformers from making its own.
    """
    return {"bounds": bounds, "attention_mask": torch.zeros(1, 1, 1, 1, dtype=torch.bool)}


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    bounds: Bounds | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: [B, heads, S, size] in, [B, S, heads, size] out."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: PLC0415

    if more.get("indices") is not None:
        raise ValueError("attention of selected tokens can't be computed by PyTorch's attention")
    if bounds is None:
        if attention_mask is not None and attention_mask.shape[-1] == 1 < query.shape[2]:
            raise AssertionError(f"{type(module).__name__} was not told where records begin")
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            scaling=scaling,
            sliding_window=sliding_window,
            **more,
        )
        return plain
    if more.get("softcap") is not None:
        raise ValueError("attention with a soft cap can't be computed by PyTorch's attention")
    rows, _, length, _ = query.shape
    kind = query.device.type
    # PyTorch's own attention does this by itself; float32 weights leave rotated queries and keys in float32.
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    flat = [each.transpose(1, 2).flatten(0, 1).to(dtype) for each in (query, key, value)]
    attended = attend(flat[0], flat[1], flat[2], bounds, scale=scaling, window=sliding_window)
    return attended.view(rows, length, *attended.shape[1:]), None
