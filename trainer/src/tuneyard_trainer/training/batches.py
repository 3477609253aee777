# SPDX-License-Identifier: Apache-2.0
"""Selects the sequences of each step and makes their tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
import torch
from torch.nn import functional

from tuneyard_trainer.model.loading import Device
from tuneyard_trainer.workspace.prepared import Split

IGNORED = -100
"""Label of a token that does not count in the loss."""


@dataclass(frozen=True)
class DataOrder:
    """An endless stream of sequences, shuffled anew for every epoch, cut into global batches.

    A step's sequences depend on seed and step alone, so that a resumed run sees what it would have seen.
    """

    sequences: int
    global_batch: int
    seed: int
    total_sequences: int
    """Length of the stream, in sequences."""

    @classmethod
    def of(
        cls, sequences: int, *, global_batch: int, seed: int, epochs: float | None, max_steps: int | None
    ) -> "DataOrder":
        """The last batch of `epochs` may be smaller; those of `max_steps` are all full."""
        total = max_steps * global_batch if max_steps else max(1, round((epochs or 1.0) * sequences))
        return cls(sequences, global_batch, seed, total)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return ceil(self.total_sequences / self.global_batch)

    def batch(self, step: int) -> list[int]:
        """Indices of the sequences of a step (from 0)."""
        first = step * self.global_batch
        stream = range(first, min(first + self.global_batch, self.total_sequences))
        return [
            int(_shuffled(self.sequences, self.seed, at // self.sequences)[at % self.sequences])
            for at in stream
        ]

    def epochs_after(self, step: int) -> float:
        """Passes over the data after `step` steps."""
        return min(step * self.global_batch, self.total_sequences) / self.sequences


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclass(frozen=True)
class Batch:
    """Tensors of a micro batch of B sequences, padded on the right to S tokens."""

    tokens: torch.Tensor
    """int64 [B, S]."""
    positions: torch.Tensor
    """int64 [B, S], from 0 in each record."""
    mask: torch.Tensor | None
    """bool [B, 1, S, S], block-diagonal and causal; None if no sequence holds several records: then plain causal
    attention is enough, as padding comes last and is never learned."""
    labels: torch.Tensor
    """int64 [B, S - 1]: the token after each, or IGNORED."""


def collate(split: Split, indices: Sequence[int], device: Device) -> Batch:
    """The batch of these sequences."""
    sequences = [split.sequence(index) for index in indices]
    length = max(len(tokens) for tokens, _, _ in sequences)
    tokens, positions, records, labels = (
        np.zeros((len(sequences), length), dtype=np.int64) for _ in range(4)
    )
    labels[:] = IGNORED
    for row, (ids, learned, numbers) in enumerate(sequences):
        end = len(ids)
        tokens[row, :end], records[row, :end] = ids, numbers
        labels[row, :end][learned] = ids[learned]
        starts = np.flatnonzero(np.diff(numbers, prepend=0))
        positions[row, :end] = np.arange(end) - np.repeat(starts, np.diff(starts, append=end))
    where = device.torch_device
    numbers_of = torch.from_numpy(records).to(where)
    return Batch(
        torch.from_numpy(tokens).to(where),
        torch.from_numpy(positions).to(where),
        block_diagonal(numbers_of) if records.max() > 1 else None,
        torch.from_numpy(labels[:, 1:].copy()).to(where),
    )


def block_diagonal(records: torch.Tensor) -> torch.Tensor:
    """Bool [B, 1, S, S]: a token attends to itself and to earlier tokens of its own record.

    `records` is int64 [B, S]; padding is a record of its own, 0, so that no row of the mask is empty.
    """
    same = records[:, :, None] == records[:, None, :]
    length = records.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=records.device).tril()
    return (same & causal)[:, None]


def summed_loss(model: torch.nn.Module, batch: Batch, device: Device) -> torch.Tensor:
    """Cross entropy in nats, summed over the learned tokens of the batch.

    Only the columns where some row learns go through the output head: with long prompts that saves most logits.
    """
    columns = (batch.labels != IGNORED).any(dim=0).nonzero().flatten()
    with device.autocast():
        logits = model(
            input_ids=batch.tokens,
            position_ids=batch.positions,
            attention_mask=batch.mask,
            logits_to_keep=columns,
            use_cache=False,
        ).logits
    labels = batch.labels[:, columns]
    return functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
