# SPDX-License-Identifier: Apache-2.0
"""The loss at the output head, piece by piece, so that the logits of all tokens never exist at once.

The gradient of a piece is made together with its loss, while its logits are there.
"""

from collections.abc import Callable
from math import ceil
from typing import Any

import torch
from torch.autograd.function import once_differentiable

PIECE = 4096
"""Most tokens whose logits exist at once."""

Piece = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, bool], tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
]


def loss_and_gradients(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, is_trained: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Cross entropy summed over the labels that are not negative, and its gradients by hidden and by a trained weight.

    `hidden` is [T, in] and `weight` [words, in], of one type.
    """
    logits = (hidden @ weight.t()).float()
    learned = labels >= 0
    total = torch.logsumexp(logits, -1)
    own = logits.gather(1, labels.clamp(min=0)[:, None]).squeeze(1)
    loss = torch.where(learned, total - own, 0.0).sum()
    words = torch.arange(len(weight), device=weight.device)
    slope = torch.exp(logits - total[:, None]) - (words[None, :] == labels[:, None]).float()
    slope = (slope * learned[:, None]).to(hidden.dtype)
    return loss, slope @ weight, slope.t() @ hidden if is_trained else None


class _SummedLoss(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, piece: Piece
    ) -> torch.Tensor:
        total, is_trained = torch.zeros((), device=hidden.device), ctx.needs_input_grad[1]
        gradient, by_weight = torch.empty_like(hidden), torch.zeros_like(weight) if is_trained else None
        used = weight.to(hidden.dtype)
        for at in _pieces(len(hidden)):
            loss, gradient[at], by_piece = piece(hidden[at], used, labels[at], is_trained)
            total += loss
            if by_weight is not None:
                by_weight += by_piece
        ctx.save_for_backward(gradient, by_weight)
        return total

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, by_total: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient, by_weight = ctx.saved_tensors
        by_hidden = gradient * by_total.to(gradient.dtype)
        return by_hidden, None if by_weight is None else by_weight * by_total, None, None


def summed_loss(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, piece: Piece = loss_and_gradients
) -> torch.Tensor:
    """Cross entropy in nats, summed over the labels that are not negative; float32.

    `hidden` is [T, in], `weight` of the head [words, in], trained if it requires a gradient, `labels` int64 [T].
    """
    if torch.is_grad_enabled():
        loss: torch.Tensor = _SummedLoss.apply(hidden, weight, labels, piece)
        return loss
    total = torch.zeros((), device=hidden.device)
    used = weight.to(hidden.dtype)
    for at in _pieces(len(hidden)):
        logits = (hidden[at] @ used.t()).float()
        total += torch.nn.functional.cross_entropy(logits, labels[at], ignore_index=-100, reduction="sum")
    return total


def _pieces(tokens: int) -> list[slice]:
    """Slices of nearly equal size."""
    size = ceil(tokens / ceil(tokens / PIECE))
    return [slice(at, at + size) for at in range(0, tokens, size)]
