# SPDX-License-Identifier: Apache-2.0
"""Selects the sequences of each step and makes their tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tuneyard_api.pod_contract import ResolvedTraining

from tuneyard_trainer.fast.attention import Bounds, sent
from tuneyard_trainer.model.adapter_config import prompt_length
from tuneyard_trainer.model.families import Family
from tuneyard_trainer.model.loading import Device
from tuneyard_trainer.model.record_bounds import bounds_arguments, takes_bounds
from tuneyard_trainer.workspace.prepared import Split

IGNORED = -100
"""Label of a token that does not count in the loss."""
_WIDTHS = 4
"""Widths of batches on a GPU, if each sequence holds one record."""
_WIDTH_MULTIPLE = 64
"""Tokens; widths of batches on a GPU are its multiples."""


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
class Frame:
    """How far batches are filled up, so that a GPU meets few shapes: each new one costs it planning or compiling.

    On a CPU a new shape costs nothing and padding does: there batches are as small as their sequences allow.
    """

    rows: int = 1
    """Least number of rows."""
    step: int = 1
    """Widths are its multiples ..."""
    most: int | None = None
    """... up to the longest sequence that the model is given, in tokens."""

    @classmethod
    def of(cls, split: Split, training: ResolvedTraining, device: Device) -> "Frame":
        """The frame of a training on `split`: one width if it holds packed records, else four."""
        if device.torch_device.type != "cuda":
            return cls()
        is_packed = len(split.records) > len(split.sequences)
        part = int(split.tokens_per_sequence().max()) / (1 if is_packed else _WIDTHS)
        step = ceil(part / _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE
        return cls(training.micro_batch_size, step, training.max_sequence_length)

    def shape(self, rows: int, length: int) -> tuple[int, int]:
        """Rows and width of a batch of so many sequences, the longest of `length` tokens."""
        width = ceil(length / self.step) * self.step
        return max(rows, self.rows), max(length, min(width, self.most or width))


@dataclass(frozen=True)
class Batch:
    """Tensors of a micro batch of B sequences, padded on the right to S tokens and below to B rows."""

    tokens: torch.Tensor
    """int64 [B, S]."""
    positions: torch.Tensor
    """int64 [B, S], from 0 in each record; they go on through padding."""
    bounds: Bounds | None
    """Bounds of the records in the B * S tokens; None if no sequence holds several: then plain causal attention is enough,
    as padding comes last and is never learned."""
    labels: torch.Tensor
    """int64 [B, S - 1]: the token after each, or IGNORED."""


def collate(split: Split, indices: Sequence[int], device: Device, frame: Frame = Frame()) -> Batch:
    """The batch of these sequences."""
    sequences = [split.sequence(index) for index in indices]
    rows, width = frame.shape(len(sequences), max(len(tokens) for tokens, _, _ in sequences))
    tokens, labels = (np.full((rows, width), fill, dtype=np.int64) for fill in (0, IGNORED))
    positions = np.tile(np.arange(width), (rows, 1))
    edges: list[int] = []
    for row, (ids, learned, numbers) in enumerate(sequences):
        end = len(ids)
        tokens[row, :end] = ids
        labels[row, :end][learned] = ids[learned]
        starts = np.flatnonzero(np.diff(numbers, prepend=0))
        positions[row] -= np.repeat(starts, np.diff(starts, append=width))
        edges += [row * width + start for start in (*starts.tolist(), *([end] if end < width else []))]
    edges += [row * width for row in range(len(sequences), rows + 1)]
    where = device.torch_device
    is_packed = any(numbers[-1] > 1 for _, _, numbers in sequences)
    return Batch(
        sent(torch.from_numpy(tokens), where),
        sent(torch.from_numpy(positions), where),
        Bounds.of(edges, where) if is_packed else None,
        sent(torch.from_numpy(labels[:, 1:].copy()), where),
    )


def block_diagonal(bounds: Bounds, rows: int) -> torch.Tensor:
    """Bool [B, 1, S, S]: a token attends to itself and to earlier tokens of its own record.

    Padding is a record of its own, so that no row of the mask is empty.
    """
    edges = bounds.on_device.long()
    numbers = torch.repeat_interleave(edges.diff()).view(rows, -1)
    same = numbers[:, :, None] == numbers[:, None, :]
    return (same & torch.ones_like(same[0]).tril())[:, None]


def summed_loss(model: torch.nn.Module, batch: Batch, device: Device) -> torch.Tensor:
    """Cross entropy in nats, summed over the learned tokens of the batch."""
    logits, labels = _learned_logits(model, batch, device)
    return functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def summed_by_row(model: torch.nn.Module, batch: Batch, device: Device) -> torch.Tensor:
    """Cross entropy in nats, summed over the learned tokens of each row: float32 [B]."""
    logits, labels = _learned_logits(model, batch, device)
    return functional.cross_entropy(
        logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
    ).sum(dim=1)


def _learned_logits(
    model: torch.nn.Module, batch: Batch, device: Device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, C, words] and labels [B, C] of the C columns where some row learns.

    Only they go through the output head: with long prompts that saves most logits.
    """
    columns = (batch.labels != IGNORED).any(dim=0).nonzero().flatten()
    virtual = prompt_length(model)
    with device.autocast():
        logits = model(
            input_ids=batch.tokens,
            # Behind virtual tokens PEFT lets the model count by itself; nothing is packed there.
            position_ids=None if virtual else batch.positions,
            logits_to_keep=columns + virtual,
            use_cache=False,
            **_attention_arguments(model, batch),
        ).logits
    if logits.shape[1] != len(columns):  # some families compute all columns, whatever they are asked for
        logits = logits[:, columns + virtual]
    return logits, batch.labels[:, columns]


def _attention_arguments(model: torch.nn.Module, batch: Batch) -> dict[str, Any]:
    """How the model is told which tokens a token may see."""
    if batch.bounds is None:
        return {"attention_mask": None}
    if takes_bounds(model):
        return bounds_arguments(batch.bounds)
    if "positions" in Family.of(model.config.model_type).ways:
        return {"attention_mask": None}
    return {"attention_mask": block_diagonal(batch.bounds, len(batch.tokens))}
