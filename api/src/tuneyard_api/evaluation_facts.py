# SPDX-License-Identifier: Apache-2.0
"""How base and tuned model did on held-out records: a part of what the stage train reports, and of status."""

from tuneyard_api.base import Tolerant
from tuneyard_api.benchmarks import BenchmarkFacts


class Scores(Tolerant):
    """One model on the test records."""

    loss: float
    """Mean cross entropy per learned token, nats; with method dpo, of the chosen answers."""
    perplexity: float
    exact_match: float
    """Share of prompts, 0 to 1, after stripping white space."""
    rouge_l: float
    """Mean ROUGE-L F1, 0 to 1 (Lin 2004), with stemming off."""
    prompts: int


class PreferenceScores(Tolerant):
    """Base and tuned model on the held-out pairs of a preference data set."""

    pairs: int
    base_accuracy: float
    """Share of pairs, 0 to 1, where the base model gives the chosen answer a higher probability than the rejected one."""
    tuned_accuracy: float
    """The same of the tuned model."""
    base_margin: float
    """Mean log-probability of the chosen answer minus that of the rejected one, nats."""
    tuned_margin: float
    """The same of the tuned model."""
    reward_accuracy: float
    """Share of pairs whose margin has grown: TRL's `rewards/accuracies`."""
    reward_margin: float
    """beta times the mean growth of the margin: TRL's `rewards/margins`."""


class EvaluationFacts(Tolerant):
    """Base against tuned."""

    base: Scores
    tuned: Scores
    preferences: PreferenceScores | None = None
    """Method dpo: the held-out pairs."""
    benchmarks: tuple[BenchmarkFacts, ...] = ()
    """Public benchmarks, in the order of the job."""
