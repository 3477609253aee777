# SPDX-License-Identifier: Apache-2.0
"""Plans a training once its model and data are known, and before a GPU is asked for: does it fit, and what will it take?

The arithmetic is tuneyard_api.forecast, as in `tuneyard plan`; here it is turned into the condition Planned.
"""

from tuneyard_api import reasons
from tuneyard_api.forecast.gpus import gpu_of
from tuneyard_api.forecast.memory import GIB
from tuneyard_api.forecast.of_job import Forecast, asked_product, forecast, steps_of
from tuneyard_api.forecast.work import work_of
from tuneyard_api.pod_contract import PrepareFacts

from tuneyard_operator.domain.frozen import Frozen
from tuneyard_operator.domain.verdict import Verdict

_PARTS = ("weights", "activations", "logits")
"""Parts of the memory that a refusal names: those that a job can change."""
_CHANGES = 2
_ANY = "any"
"""Stands for the product of a job that names none."""


def forecast_of(frozen: Frozen, facts: PrepareFacts) -> Forecast | None:
    """What the training will take; None on CPU, in NeMo Customizer, or if the sizes of the model are not told."""
    resolved, training, runtime = frozen.plan.resolved, frozen.plan.resolved.training, frozen.runtime
    if runtime.customizer is not None or runtime.accelerator == "none" or facts.model is None:
        return None
    record = facts.train_tokens // facts.train_records if facts.train_records else None
    return forecast(
        work_of(resolved, facts.model, longest=facts.longest_sequence, record=record),
        gpu_of(asked_product(frozen.spec, frozen.runtime) or _ANY),
        has_micro_batch=frozen.spec.training.micro_batch_size is not None,
        has_checkpointing=frozen.spec.training.gradient_checkpointing is not None,
        steps=steps_of(
            epochs=training.epochs,
            max_steps=training.max_steps,
            global_batch=training.global_batch_size,
            sequences=facts.train_sequences,
        ),
        quantizations=frozen.runtime.quantizations,
    )


def why_it_does_not_fit(found: Forecast) -> Verdict | None:
    """The refusal of a training that needs more memory than the GPU has that it asks for."""
    if found.fits:
        return None
    parts = found.memory.parts()
    named = ", ".join(f"{name} {parts[name] / GIB:.1f}" for name in _PARTS)
    tries = " or ".join(
        f"{change.words} ({change.memory.total / GIB:.1f} of {change.gpu.memory_gib:g} GiB)"
        for change in found.changes[:_CHANGES]
    )
    message = (
        f"the training needs {found.memory.total / GIB:.1f} GiB on each GPU ({named}), and {found.gpu.product} has"
        f" {found.gpu.memory_gib:g}; try {tries or 'a smaller model'}"
    )
    return Verdict(reasons.DOES_NOT_FIT, message, final=True)


def numbers_of(found: Forecast, budget: float | None) -> str:
    """Memory, time and GPU hours for the message of the condition Planned; `budget` is in GPU hours."""
    needed = f"{found.memory.total / GIB:.1f}"
    if found.gpu.product == _ANY:
        memory = f"{needed} GiB on each GPU, compared with none, as no GPU product is named"
    elif found.gpu.memory_gib is None:
        memory = f"{needed} GiB on each GPU, not compared with {found.gpu.product}, whose memory is not known"
    else:
        memory = f"{needed} of {found.gpu.memory_gib:g} GiB on {found.gpu.product}"
    checkpointing = ", gradient checkpointing" if found.work.is_recomputing else ""
    if found.seconds is None or found.gpu_hours is None:
        return f"{memory}{checkpointing}"
    limit = "" if budget is None or found.gpu_hours <= budget else f", above spec.budget.gpuHours {budget:g}"
    source = "" if found.is_time_measured else " by the data sheet of this GPU"
    return f"{memory}{checkpointing}; about {_minutes(found.seconds)} and {found.gpu_hours:.2g} GPU hours{source}{limit}"


def _minutes(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"  # noqa: PLR2004
