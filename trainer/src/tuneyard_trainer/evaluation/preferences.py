# SPDX-License-Identifier: Apache-2.0
"""Measures a model on held-out pairs of answers, and compares base and tuned model by it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tuneyard_api.evaluation_facts import PreferenceScores

from tuneyard_trainer.model.world import World
from tuneyard_trainer.pod.context import StopRequest
from tuneyard_trainer.pod.failures import Interrupted
from tuneyard_trainer.training.loop import shares
from tuneyard_trainer.training.preferences import PairLosses, one_by_one
from tuneyard_trainer.workspace.prepared import Split


@dataclass(frozen=True)
class MeasuredPairs:
    """One model on the held-out pairs."""

    loss: float
    """Nats per token of the chosen answers."""
    margins: list[float]
    """Log-probability of the chosen answer minus that of the rejected one, of each pair, in nats."""


def measure_pairs(
    losses: PairLosses, split: Split, *, micro_batch: int, world: World, stop: StopRequest
) -> MeasuredPairs:
    """The model as it is now on every pair of a split; every process must call it.

    Raises:
        Interrupted: if the training runs alone and SIGTERM comes.
    """
    model = losses.model
    was_training = model.training
    model.eval()
    found: dict[int, tuple[float, float]] = {}
    with torch.no_grad():
        for _, pairs, _ in shares(range(len(split)), micro_batch, world):
            if stop and world.size == 1:
                raise Interrupted(
                    "stopped by SIGTERM while measuring the held-out pairs; what was trained is kept"
                )
            margins, chosen = losses.margins(split, pairs)
            found.update(zip(pairs, zip(margins.tolist(), chosen.tolist(), strict=True), strict=True))
    model.train(was_training)
    every = {pair: values for part in world.gather(found) for pair, values in part.items()}
    tokens = int(one_by_one(split).learned_per_sequence()[0::2].sum())
    return MeasuredPairs(
        -sum(chosen for _, chosen in every.values()) / tokens, [every[pair][0] for pair in range(len(split))]
    )


def compare_pairs(base: Sequence[float], tuned: Sequence[float], beta: float) -> PreferenceScores:
    """The scores of both models by their margins."""
    grown = [after - before for before, after in zip(base, tuned, strict=True)]
    return PreferenceScores(
        pairs=len(grown),
        base_accuracy=_share_above_zero(base),
        tuned_accuracy=_share_above_zero(tuned),
        base_margin=sum(base) / len(base),
        tuned_margin=sum(tuned) / len(tuned),
        reward_accuracy=_share_above_zero(grown),
        reward_margin=beta * sum(grown) / len(grown),
    )


def _share_above_zero(values: Sequence[float]) -> float:
    return sum(value > 0 for value in values) / len(values)
