# SPDX-License-Identifier: Apache-2.0
"""Refuses a gate that a job can never measure, or that would have no effect, as CEL and in Python side by side."""

from collections.abc import Callable
from typing import Any

from tuneyard_api.base import Rule
from tuneyard_api.gate import Maximum, Minimum, Tolerances, spelt


def _asks_for(*metrics: str) -> tuple[str, Callable[[Any], bool]]:
    """Whether a gate has one of these metrics, in CEL of a spec and in Python."""
    names = [spelt(name) for name in metrics]
    gate = "self.evaluation.gate"
    places = (
        ("minimum", Minimum),
        ("maximum", Maximum),
        ("mustNotRegress.base", Tolerances),
        ("mustNotRegress.served", Tolerances),
    )
    asked = []
    for place, kind in places:
        parts = place.split(".")
        there = [f"has({'.'.join([gate, *parts[: end + 1]])})" for end in range(len(parts))]
        known = [name for name, metric in zip(names, metrics, strict=True) if metric in kind.model_fields]
        if known:
            one = " || ".join(f"has({gate}.{place}.{name})" for name in known)
            asked.append(f"({' && '.join(there)} && ({one}))")
    cel = f"has({gate}) && ({' || '.join(asked)})"
    return (
        cel,
        lambda spec: spec.evaluation.gate is not None and bool(spec.evaluation.gate.metrics() & set(metrics)),
    )


_PAIRS, _HAS_PAIRS = _asks_for("preference_accuracy")
_ANSWERS, _HAS_ANSWERS = _asks_for("exact_match", "rouge_l")
_SERVED = (
    "has(self.evaluation.gate) && has(self.evaluation.gate.mustNotRegress)"
    " && has(self.evaluation.gate.mustNotRegress.served)"
)


def _has_served(spec: Any) -> bool:
    return spec.evaluation.gate is not None and spec.evaluation.gate.served is not None


_OTHER_METHOD = (
    "preferenceAccuracy is measured by method dpo (got method {method}); try rougeL or loss, or method dpo"
)
GATE_OF_PAIRS = Rule(
    cel=f"self.method == 'dpo' || !({_PAIRS})",
    cel_message="'" + _OTHER_METHOD.replace("{method}", "' + self.method + '") + "'",
    broken=lambda spec: (
        _OTHER_METHOD.format(method=spec.method) if spec.method != "dpo" and _HAS_PAIRS(spec) else None
    ),
    sentence="preferenceAccuracy is measured by method dpo",
    field="evaluation.gate",
)
_TEXT = "exactMatch and rougeL are measured on prompts, and text has none (got dataset.format text); try loss or perplexity"
GATE_OF_PROMPTS = Rule(
    cel=f"self.dataset.format != 'text' || !({_ANSWERS})",
    cel_message=f"'{_TEXT}'",
    broken=lambda spec: _TEXT if spec.dataset.format == "text" and _HAS_ANSWERS(spec) else None,
    sentence="exactMatch and rougeL are measured on prompts, and text has none",
    field="evaluation.gate",
)
_NO_REPLACE = (
    "a name that is taken is refused without publish.replace, so there is no served version to compare with (got false);"
    " try publish.replace: true, or base"
)
GATE_OF_REPLACED = Rule(
    cel=f"self.publish.replace || !({_SERVED})",
    cel_message=f"'{_NO_REPLACE}'",
    broken=lambda spec: _NO_REPLACE if not spec.publish.replace and _has_served(spec) else None,
    sentence=_NO_REPLACE.partition(" (got")[0],
    field="evaluation.gate.mustNotRegress.served",
)
_OWN_RECORDS = (
    "two versions compare on the same held-out records alone, and records taken from the training data are of this job alone"
    " (got neither dataset.test nor dataset.validation); try dataset.test, or base"
)
GATE_ON_SAME_RECORDS = Rule(
    cel=f"has(self.dataset.test) || has(self.dataset.validation) || !({_SERVED})",
    cel_message=f"'{_OWN_RECORDS}'",
    broken=lambda spec: (
        _OWN_RECORDS
        if spec.dataset.test is None and spec.dataset.validation is None and _has_served(spec)
        else None
    ),
    sentence=_OWN_RECORDS.partition(" (got")[0],
    field="evaluation.gate.mustNotRegress.served",
)
RULES = (GATE_OF_PAIRS, GATE_OF_PROMPTS, GATE_OF_REPLACED, GATE_ON_SAME_RECORDS)
"""The rules of a FineTuneJob's spec."""
