# SPDX-License-Identifier: Apache-2.0
"""Reads the answers of base and tuned model: how many there are, what of them is kept, and what is shown."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuneyard_api.job import Trial as WantedTrial
from tuneyard_api.registry import Question, Trial

KEPT_BYTES = 1 << 20
"""Most bytes of the file of answers that is kept; whole lines from its beginning."""
TRIED_CHARACTERS = 4096
"""Longest prompt that servers are tried with, as JSON: version.json keeps it, and pointers in S3 are copies of that."""
SHOWN = 12
"""Number of prompts that the report shows."""
SHOWN_CHARACTERS = 600
"""Longest text of a prompt, a reference or an answer in the report."""


@dataclass(frozen=True)
class Sample:
    """One prompt with what was expected and what both models answered."""

    prompt: str
    reference: str
    base: str
    tuned: str
    rouge_l_base: float
    rouge_l_tuned: float


@dataclass
class Samples:
    """The file of answers."""

    total: int = 0
    """Prompts that were asked."""
    kept: list[str] = field(default_factory=list)
    """The first lines of the file, as they are, up to KEPT_BYTES."""
    shown: list[Sample] = field(default_factory=list)
    rouge_l: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    """Scores of every prompt: base and tuned model."""
    exact: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    """1 where the answer is the reference, else 0, of every prompt: base and tuned model."""


def read_samples(path: Path) -> Samples:
    """The answers in a file that `evaluation.compare` wrote, up to the first torn line; none if there is no file."""
    samples, room, is_whole = Samples(), KEPT_BYTES, True
    if not path.is_file():
        return samples
    with path.open(encoding="utf-8") as file:
        for line in file:
            sample = _parse(line)
            if sample is None:
                break
            room -= len(line.encode())
            # A line that does not fit ends what is kept, so that it is a beginning and no choice.
            is_whole = is_whole and room >= 0
            if is_whole:
                samples.kept.append(line)
            _add(samples, sample)
    return samples


def read_trial(path: Path, wanted: WantedTrial, max_new_tokens: int) -> Trial | None:
    """The first short prompts of the file with the tuned model's answers; None if there are none, or none are wanted."""
    questions: list[Question] = []
    for line in read_samples(path).kept:
        content = json.loads(line)
        question = Question(
            prompt=content["prompt"], messages=content.get("messages"), answer=content["tuned"]
        )
        if len(question.model_dump_json()) <= TRIED_CHARACTERS and len(questions) < wanted.prompts:
            questions.append(question)
    if not questions:
        return None
    return Trial(
        questions=tuple(questions), max_new_tokens=max_new_tokens, min_similarity=wanted.min_similarity
    )


def _parse(line: str) -> Sample | None:
    try:
        content = json.loads(line)
        return Sample(
            prompt=content["prompt"],
            reference=content["reference"],
            base=content["base"],
            tuned=content["tuned"],
            rouge_l_base=content["rougeLBase"],
            rouge_l_tuned=content["rougeLTuned"],
        )
    except (ValueError, KeyError, TypeError):
        return None


def _add(samples: Samples, sample: Sample) -> None:
    samples.total += 1
    if len(samples.shown) < SHOWN:
        samples.shown.append(sample)
    answers: Sequence[str] = (sample.base, sample.tuned)
    rouges = (sample.rouge_l_base, sample.rouge_l_tuned)
    for at in range(2):
        samples.exact[at].append(float(answers[at] == sample.reference))
        samples.rouge_l[at].append(rouges[at])
