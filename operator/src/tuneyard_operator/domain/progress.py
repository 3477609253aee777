# SPDX-License-Identifier: Apache-2.0
"""How far the training is, in the words that people read."""

from tuneyard_api.pod_contract import Progress, TrainFacts, TrainingMeasures
from tuneyard_api.status import ProgressStatus

READ_EVERY = 10.0
"""Seconds between two looks at a training pod, and so between two writes of progress."""
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def duration_text(seconds: int) -> str:
    """Two units of a duration: `45s`, `3m20s`, `2h05m`, `1d03h`."""
    if seconds < _MINUTE:
        return f"{seconds}s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE}m{seconds % _MINUTE:02d}s"
    if seconds < _DAY:
        return f"{seconds // _HOUR}h{seconds % _HOUR // _MINUTE:02d}m"
    return f"{seconds // _DAY}d{seconds % _DAY // _HOUR:02d}h"


def moved(former: ProgressStatus | None, progress: Progress) -> ProgressStatus | None:
    """The progress to write, or None when there is no news: the base model is measured, then each optimizer step counts.

    Measurements and checkpoints between optimizer steps are no news: the training stands where it stood.
    """
    has_begun = former is not None and former.phase == "training"
    if not (progress.phase == "training" or (progress.phase == "evaluating" and not has_begun)):
        return None
    if progress.of <= 0 or (former is None and progress.step == 0):
        return None
    now = (progress.phase, progress.step, progress.of)
    if former is not None and (former.phase, former.step, former.of) == now:
        return None
    return ProgressStatus(
        phase=progress.phase,
        step=progress.step,
        of=progress.of,
        percent=min(100, progress.step * 100 // progress.of),
        loss=_rounded(progress.loss),
        tokens_per_second=_rounded(progress.tokens_per_second),
        eta=None if progress.eta_seconds is None else duration_text(max(0, progress.eta_seconds)),
    )


def completed(facts: TrainFacts) -> ProgressStatus:
    """The progress of a training that is over."""
    return ProgressStatus(
        step=facts.steps,
        of=facts.steps,
        percent=100,
        loss=_rounded(facts.final_loss),
        tokens_per_second=_rounded(facts.tokens_per_second),
    )


def of_steps(steps: int, loss: float | None) -> ProgressStatus:
    """The progress of a training that is over, of a service that says nothing of tokens."""
    return ProgressStatus(step=steps, of=steps, percent=100, loss=_rounded(loss))


def shown(measures: TrainingMeasures) -> TrainingMeasures:
    """The measures as status has them."""
    return measures.model_copy(
        update={
            "validation_loss": _rounded(measures.validation_loss),
            "tokens_per_second": _rounded(measures.tokens_per_second),
        }
    )


def measured(facts: TrainFacts) -> TrainingMeasures:
    """The measures of a training that is over."""
    is_validated = facts.validation_loss is not None
    return shown(
        TrainingMeasures(
            validation_loss=facts.validation_loss,
            best_step=facts.best_step or (facts.steps if is_validated else None),
            trained_tokens=facts.trained_tokens,
            tokens_per_second=facts.tokens_per_second,
            peak_memory_bytes=facts.peak_memory_bytes,
        )
    )


def _rounded(value: float | None) -> float | None:
    """Four significant digits: `kubectl get` prints a number as it stands in status."""
    return None if value is None else float(f"{value:.4g}")
