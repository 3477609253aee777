# SPDX-License-Identifier: Apache-2.0
"""Direct preference optimization (Rafailov et al. 2023): the loss of pairs of answers to one prompt.

-log(sigmoid(beta * (margin of the tuned model - margin of the reference))), where a margin is the log-probability of the chosen
answer minus that of the rejected one, each summed over its tokens. It is what TRL computes by default. The reference is
the model without its adapter, so that no second model is held.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_trainer.model.loading import Device
from tuneyard_trainer.model.world import World
from tuneyard_trainer.training.batches import Frame, collate, summed_by_row
from tuneyard_trainer.training.losses import Losses
from tuneyard_trainer.workspace.prepared import Split

WHY_PLAIN = "method dpo needs the probability of each answer, with the adapter and without it"


@dataclass(frozen=True)
class PairLosses(Losses):
    """Computes losses of pairs: sequences of two records, the chosen one first."""

    beta: float = 0.1

    @classmethod
    def choose(cls, model: Any, job: ResolvedJob, device: Device, world: World, frame: Frame) -> "PairLosses":
        """Chooses transformers and PEFT, on any `world`; `frame` is that of a pair's answers one by one."""
        del world
        if job.dpo is None:
            raise AssertionError("a job of method dpo has its options")
        rows = 2 * frame.rows if frame.rows > 1 else 1
        return cls(model, device, replace(frame, rows=rows), why_plain=WHY_PLAIN, beta=job.dpo.beta)

    def summed(self, split: Split, indices: Sequence[int]) -> torch.Tensor:
        """The loss, summed over these pairs."""
        with torch.no_grad(), without_adapter(self.model):
            reference, _ = self.margins(split, indices)
        margins, _ = self.margins(split, indices)
        return -functional.logsigmoid(self.beta * (margins - reference)).sum()

    def counted(self, split: Split) -> np.ndarray:
        """Int64 [pairs]: each counts once."""
        return np.ones(len(split), dtype=np.int64)

    def margins(self, split: Split, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The margin of each pair, float32 [pairs], and the log-probability of its chosen answer; in nats."""
        answers = [2 * pair + side for pair in indices for side in (0, 1)]
        batch = collate(one_by_one(split), answers, self.device, self.frame)
        likely = -summed_by_row(self.model, batch, self.device)[: len(answers)]
        return likely[0::2] - likely[1::2], likely[0::2]


def one_by_one(split: Split) -> Split:
    """The same records, each a sequence of its own."""
    return replace(split, sequences=np.arange(len(split.records), dtype=np.int64))


@contextmanager
def without_adapter(model: Any) -> Iterator[None]:
    """The model as it was before the training, without dropout."""
    was_training = model.training
    model.eval()
    with model.disable_adapter():
        yield
    model.train(was_training)
