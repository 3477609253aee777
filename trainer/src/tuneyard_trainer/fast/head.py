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

Piece = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def loss_and_gradient(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy summed over the labels that are not negative, and its gradient by `hidden` [T, in]."""
    logits = (hidden @ weight.t()).float()
    learned = labels >= 0
    total = torch.logsumexp(logits, -1)
    own = logits.gather(1, labels.clamp(min=0)[:, None]).squeeze(1)
    loss = torch.where(learned, total - own, 0.0).sum()
    words = torch.arange(len(weight), device=weight.device)
    slope = torch.exp(logits - total[:, None]) - (words[None, :] == labels[:, None]).float()
    return loss, (slope * learned[:, None]).to(hidden.dtype) @ weight


class _SummedLoss(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, piece: Piece
    ) -> torch.Tensor:
        total = torch.zeros((), device=hidden.device)
        gradient = torch.empty_like(hidden)
        for at in _pieces(len(hidden)):
            loss, gradient[at] = piece(hidden[at], weight, labels[at])
            total += loss
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, by_total: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * by_total.to(gradient.dtype), None, None, None


def summed_loss(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, piece: Piece = loss_and_gradient
) -> torch.Tensor:
    """Cross entropy in nats, summed over the labels that are not negative; float32.

    `hidden` is [T, in], `weight` of the head [words, in] and frozen, `labels` int64 [T].
    """
    if torch.is_grad_enabled():
        loss: torch.Tensor = _SummedLoss.apply(hidden, weight, labels, piece)
        return loss
    total = torch.zeros((), device=hidden.device)
    for at in _pieces(len(hidden)):
        logits = (hidden[at] @ weight.t()).float()
        total += torch.nn.functional.cross_entropy(logits, labels[at], ignore_index=-100, reduction="sum")
    return total


def _pieces(tokens: int) -> list[slice]:
    """Of nearly equal size."""
    size = ceil(tokens / ceil(tokens / PIECE))
    return [slice(at, at + size) for at in range(0, tokens, size)]
