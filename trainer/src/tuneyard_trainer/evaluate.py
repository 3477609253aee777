# SPDX-License-Identifier: Apache-2.0
"""Base against tuned on held-out records: loss, perplexity, exact match, ROUGE-L, and answers side by side."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tuneyard_api.pod_contract import EvaluationFacts, ResolvedJob, Scores

from tuneyard_trainer import durable
from tuneyard_trainer.distributed import World
from tuneyard_trainer.failures import Interrupted
from tuneyard_trainer.generate import complete
from tuneyard_trainer.loop import mean_loss
from tuneyard_trainer.model import Device
from tuneyard_trainer.prepared import Prompt, Split
from tuneyard_trainer.progress import Board
from tuneyard_trainer.stages import StopRequest
from tuneyard_trainer.tokenization import TextTokenizer


@dataclass(frozen=True)
class Losses:
    """Held-out losses, in nats per learned token."""

    base: float
    tuned: float


@dataclass
class Evaluation:
    """All that both models are measured with."""

    job: ResolvedJob
    model: Any
    tokenizer: TextTokenizer
    device: Device
    board: Board
    stop: StopRequest

    def losses(self, split: Split, world: World) -> Losses:
        """Every process must call it."""
        self.board.update(phase="evaluating", step=0, of=0, eta_seconds=None)
        tuned = self._loss(split, world)
        with self.model.disable_adapter():
            return Losses(self._loss(split, world), tuned)

    def _loss(self, split: Split, world: World) -> float:
        size = self.job.training.micro_batch_size
        return mean_loss(self.model, split, micro_batch=size, device=self.device, world=world, stop=self.stop)

    def answers(self, prompts: Sequence[Prompt]) -> tuple[list[str], list[str]]:
        """Of base and tuned model; one process is enough.

        Raises:
            Interrupted: if SIGTERM comes. The training is kept.
        """
        self.model.eval()
        with self.model.disable_adapter():
            base = self._complete(prompts, done=0)
        return base, self._complete(prompts, done=len(prompts))

    def _complete(self, prompts: Sequence[Prompt], *, done: int) -> list[str]:
        with self.device.autocast():
            return complete(
                self.model,
                [prompt.ids for prompt in prompts],
                stop_ids=self.tokenizer.stop_ids,
                max_new_tokens=self.job.evaluation.max_new_tokens,
                decode=self.tokenizer.decode,
                device=self.device.torch_device,
                batch_done=self._teller(done, 2 * len(prompts)),
            )

    def _teller(self, done: int, of: int) -> Callable[[int], None]:
        def tell(answered: int) -> None:
            self.board.update(step=done + answered, of=of)
            if self.stop:
                raise Interrupted("stopped by SIGTERM while evaluating; the training is done and kept")

        return tell


def rouge_l(reference: str, answer: str) -> float:
    """ROUGE-L F1 (Lin 2004) as the rouge-score library reckons it, stemming off."""
    return float(_scorer().score(reference, answer)["rougeL"].fmeasure)


def write_samples(
    path: Path, prompts: Sequence[Prompt], base: Sequence[str], tuned: Sequence[str]
) -> tuple[list[float], list[float]]:
    """One JSON object per prompt with both answers and their ROUGE-L, which is returned: base, tuned."""
    lines: list[str] = []
    scores: tuple[list[float], list[float]] = ([], [])
    for prompt, base_answer, tuned_answer in zip(prompts, base, tuned, strict=True):
        scores[0].append(rouge_l(prompt.reference, base_answer))
        scores[1].append(rouge_l(prompt.reference, tuned_answer))
        sample = {
            "prompt": prompt.prompt,
            **({"messages": prompt.messages} if prompt.messages is not None else {}),
            "reference": prompt.reference,
            "base": base_answer,
            "tuned": tuned_answer,
            "rougeLBase": scores[0][-1],
            "rougeLTuned": scores[1][-1],
        }
        lines.append(json.dumps(sample, ensure_ascii=False) + "\n")
    durable.write_file(path, "".join(lines).encode())
    return scores


def evaluation_facts(
    losses: Losses,
    prompts: Sequence[Prompt],
    answers: tuple[list[str], list[str]],
    rouges: tuple[list[float], list[float]],
) -> EvaluationFacts:
    """Both models' scores; without prompts (plain text) exact match and ROUGE-L are 0 of 0."""
    references = [prompt.reference for prompt in prompts]
    base, tuned = (
        Scores(
            loss=loss,
            # Beyond e^700 a float overflows; such a model is no better than that.
            perplexity=math.exp(min(loss, 700.0)),
            exact_match=_mean([float(a == r) for a, r in zip(answered, references, strict=True)]),
            rouge_l=_mean(rouge),
            prompts=len(references),
        )
        for loss, answered, rouge in zip((losses.base, losses.tuned), answers, rouges, strict=True)
    )
    return EvaluationFacts(base=base, tuned=tuned)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415  a second

    return RougeScorer(["rougeL"], use_stemmer=False)
