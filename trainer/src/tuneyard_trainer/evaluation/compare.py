# SPDX-License-Identifier: Apache-2.0
"""Compares base and tuned model on held-out records: loss, perplexity, exact match, ROUGE-L, and answers."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tuneyard_api import durable
from tuneyard_api.evaluation_facts import EvaluationFacts, Scores
from tuneyard_api.pod_contract import ResolvedJob
from tuneyard_data.tokenization import TextTokenizer

from tuneyard_trainer.evaluation.benchmarks import Asked, ask, compare_asked, keep_asked, kept_asked
from tuneyard_trainer.evaluation.generate import complete
from tuneyard_trainer.evaluation.preferences import compare_pairs, measure_pairs
from tuneyard_trainer.evaluation.rouge import rouge_l
from tuneyard_trainer.model.world import World
from tuneyard_trainer.pod.context import StopRequest
from tuneyard_trainer.pod.failures import Interrupted
from tuneyard_trainer.pod.progress import Board
from tuneyard_trainer.training.loop import TRAINING_ADVICE, check_held_out, mean_loss
from tuneyard_trainer.training.losses import Losses
from tuneyard_trainer.training.preferences import PairLosses
from tuneyard_trainer.workspace.prepared import Prompt, Split

_BASE_ADVICE = "training.precision fp32, or another revision of the model: its weights may be damaged"


@dataclass(frozen=True)
class Measured:
    """One model on the held-out records."""

    loss: float
    """Nats per learned token."""
    answers: list[str]
    """Answers, in the order of the prompts."""
    margins: list[float] | None = None
    """Method dpo: of each held-out pair, as `MeasuredPairs` has them."""


@dataclass
class Evaluation:
    """Measures both models in the same way; every process must make the same calls."""

    job: ResolvedJob
    losses: Losses
    tokenizer: TextTokenizer
    split: Split
    prompts: Sequence[Prompt]
    world: World
    board: Board
    stop: StopRequest

    def base(self, path: Path, plan_digest: str) -> Measured:
        """The scores of the model before training, kept at `path` for attempts that resume from a checkpoint."""
        kept = self.world.of_first(_kept(path, plan_digest))
        if kept is not None:
            return kept
        measured = self._measure("the base model, before training", _BASE_ADVICE)
        if self.world.is_first:
            content = {"planDigest": plan_digest, "measured": asdict(measured)}
            durable.write_file(path, json.dumps(content).encode())
        return measured

    def tuned(self) -> Measured:
        """The scores of the model after training."""
        return self._measure("the tuned model", TRAINING_ADVICE)

    def benchmarks(self, workspace: Path, kept_at: Path | None, plan_digest: str) -> dict[str, Asked]:
        """The public benchmarks of the job on the model as it is now; with `kept_at` also for later attempts.

        Raises:
            Interrupted: if SIGTERM comes.
        """
        wanted = self.job.evaluation.benchmarks
        if wanted is None:
            return {}
        kept = self.world.of_first(kept_asked(kept_at, plan_digest)) if kept_at else None
        if kept is not None:
            return kept
        # It takes seconds to import, and an image may be without it.
        from tuneyard_trainer.evaluation.language_model import TrainedModel, room_of  # noqa: PLC0415

        model, device = self.losses.model, self.losses.device
        lm = TrainedModel(
            model,
            self.tokenizer.loaded,
            longest=room_of(model),
            device=device.torch_device,
            world=self.world,
            batch_done=self._tell_of,
        )
        with device.autocast():
            asked = ask(lm, wanted, workspace)
        if kept_at and self.world.is_first:
            keep_asked(kept_at, plan_digest, asked)
        return asked

    def _measure(self, called: str, advice: str) -> Measured:
        """The scores of the model as it is now; a failure names it `called`, and gives the advice.

        Raises:
            Interrupted: if SIGTERM comes. What was trained is kept.
            StageFailure: NonFiniteLoss.
        """
        self.board.update(phase="evaluating", step=0, of=0, eta_seconds=None)
        micro, margins = self.job.training.micro_batch_size, None
        if isinstance(self.losses, PairLosses):
            pairs = measure_pairs(
                self.losses, self.split, micro_batch=micro, world=self.world, stop=self.stop
            )
            loss, margins = pairs.loss, pairs.margins
        else:
            loss = mean_loss(self.losses, self.split, micro_batch=micro, world=self.world, stop=self.stop)
        check_held_out(loss, called, advice)
        model, device = self.losses.model, self.losses.device
        model.eval()
        with device.autocast():
            answers = complete(
                model,
                [prompt.ids for prompt in self.prompts],
                stop_ids=self.tokenizer.stop_ids,
                max_new_tokens=self.job.evaluation.max_new_tokens,
                decode=self.tokenizer.decode,
                device=device.torch_device,
                batch_done=self._tell,
                world=self.world,
            )
        return Measured(loss, answers, margins)

    def _tell(self, answered: int) -> None:
        self._tell_of(answered, len(self.prompts))

    def _tell_of(self, done: int, of: int) -> None:
        self.board.update(phase="evaluating", step=done, of=of)
        if self.world.is_any(self.stop):
            raise Interrupted("stopped by SIGTERM while evaluating; what was trained is kept")


def _kept(path: Path, plan_digest: str) -> Measured | None:
    """The scores from an earlier attempt of this plan; a torn file or one of another plan counts as none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Measured(**content["measured"]) if content["planDigest"] == plan_digest else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def compare(
    path: Path,
    prompts: Sequence[Prompt],
    base: Measured,
    tuned: Measured,
    *,
    beta: float = 0.0,
    asked: tuple[dict[str, Asked], dict[str, Asked]] = ({}, {}),
) -> EvaluationFacts:
    """Both models' scores, with `beta` where they were measured on pairs; writes one JSON object per prompt with both answers to `path`.

    `asked` are public benchmarks of both. Without prompts (plain text) exact match and ROUGE-L are 0 of 0.
    """
    lines: list[str] = []
    rouges: tuple[list[float], list[float]] = ([], [])
    for prompt, *answers in zip(prompts, base.answers, tuned.answers, strict=True):
        for scores, answer in zip(rouges, answers, strict=True):
            scores.append(rouge_l(prompt.reference, answer))
        sample = {
            "prompt": prompt.prompt,
            **({"messages": prompt.messages} if prompt.messages is not None else {}),
            "reference": prompt.reference,
            "base": answers[0],
            "tuned": answers[1],
            "rougeLBase": rouges[0][-1],
            "rougeLTuned": rouges[1][-1],
        }
        lines.append(json.dumps(sample, ensure_ascii=False) + "\n")
    durable.write_file(path, "".join(lines).encode())
    references = [prompt.reference for prompt in prompts]
    of_base, of_tuned = (
        Scores(
            loss=measured.loss,
            # Beyond e^700 a float overflows; such a model is no better than that.
            perplexity=math.exp(min(measured.loss, 700.0)),
            exact_match=_mean([float(a == r) for a, r in zip(measured.answers, references, strict=True)]),
            rouge_l=_mean(rouge),
            prompts=len(references),
        )
        for measured, rouge in zip((base, tuned), rouges, strict=True)
    )
    pairs = None
    if base.margins and tuned.margins:
        pairs = compare_pairs(base.margins, tuned.margins, beta)
    return EvaluationFacts(base=of_base, tuned=of_tuned, preferences=pairs, benchmarks=compare_asked(*asked))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
