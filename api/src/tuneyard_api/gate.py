# SPDX-License-Identifier: Apache-2.0
"""The gate between evaluation and publication: what the tuned model must reach, and whether it did.

`why_refused` is all of the decision. The operator asks it as soon as the evaluation is there; the stage publish asks it
again with what the registry says of the version now served.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tuneyard_api.base import Contract, Rule, Tolerant
from tuneyard_api.evaluation_facts import EvaluationFacts, Scores

_EQUAL_WITHIN = 1e-9
"""What floating-point subtraction may add to a difference that is allowed exactly."""


@dataclass(frozen=True)
class Metric:
    """What a condition must know of a metric."""

    is_loss: bool
    """Whether less is better."""
    needs: Literal["records", "prompts", "pairs"]
    """What must have been held out for it."""


METRICS: Mapping[str, Metric] = {
    "loss": Metric(is_loss=True, needs="records"),
    "perplexity": Metric(is_loss=True, needs="records"),
    "exact_match": Metric(is_loss=False, needs="prompts"),
    "rouge_l": Metric(is_loss=False, needs="prompts"),
    "preference_accuracy": Metric(is_loss=False, needs="pairs"),
}
"""The metrics by the names of their fields."""


def _any_of(*names: str) -> Rule:
    """The rule that an object has at least one of these fields."""
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    sentence = f"one of {listed} is wanted"
    message = f"{sentence} (got none); try {names[0]}"
    return Rule(
        cel=" || ".join(f"has(self.{name})" for name in names),
        cel_message=f"'{message}'",
        broken=lambda part: None if part.model_dump(exclude_none=True) else message,
        sentence=sentence,
    )


Share = Annotated[float, Field(ge=0, le=1)]
Nats = Annotated[float, Field(ge=0, le=100)]
Perplexity = Annotated[float, Field(ge=0, le=1e9)]


class Minimum(Contract):
    """Least values of the tuned model, for metrics of which more is better."""

    rules: ClassVar[tuple[Rule, ...]] = (_any_of("exactMatch", "rougeL", "preferenceAccuracy"),)

    exact_match: Share | None = None
    """Share of prompts that are answered exactly, 0 to 1."""
    rouge_l: Share | None = None
    """Mean ROUGE-L F1 of the answers, 0 to 1."""
    preference_accuracy: Share | None = None
    """Method dpo: share of held-out pairs, 0 to 1, where the chosen answer is the more probable one."""


class Maximum(Contract):
    """Largest values of the tuned model, for metrics of which less is better."""

    rules: ClassVar[tuple[Rule, ...]] = (_any_of("loss", "perplexity"),)

    loss: Nats | None = None
    """Mean cross entropy per learned token, nats; with method dpo, of the chosen answers."""
    perplexity: Perplexity | None = None
    """e to the power of the loss."""


class Tolerances(Contract):
    """How much worse each metric may be, in its own unit; 0: not worse at all. A metric that is absent is not compared."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _any_of("loss", "perplexity", "exactMatch", "rougeL", "preferenceAccuracy"),
    )

    loss: Nats | None = None
    """Nats per learned token that it may be higher."""
    perplexity: Perplexity | None = None
    """How much higher it may be."""
    exact_match: Share | None = None
    """How much lower the share may be."""
    rouge_l: Share | None = None
    """How much lower it may be."""
    preference_accuracy: Share | None = None
    """Method dpo: how much lower the share may be."""


class MustNotRegress(Contract):
    """What the tuned model must not be worse than."""

    rules: ClassVar[tuple[Rule, ...]] = (_any_of("base", "served"),)

    base: Tolerances | None = None
    """Than the base model."""
    served: Tolerances | None = None
    """Than the version that the name stands for when the job publishes, by the evaluation that the registry keeps with it. A
    name that is free compares with nothing."""


class Gate(Contract):
    """Conditions on the evaluation. If one is not met, nothing is published and the job fails with GateFailed."""

    rules: ClassVar[tuple[Rule, ...]] = (_any_of("minimum", "maximum", "mustNotRegress"),)

    minimum: Minimum | None = None
    """Least values of the tuned model."""
    maximum: Maximum | None = None
    """Largest values of the tuned model."""
    must_not_regress: MustNotRegress | None = None
    """What it must not be worse than."""

    @property
    def base(self) -> Tolerances | None:
        """How much worse than the base model it may be; None: they are not compared."""
        return self.must_not_regress.base if self.must_not_regress else None

    @property
    def served(self) -> Tolerances | None:
        """How much worse than the served version it may be; None: they are not compared."""
        return self.must_not_regress.served if self.must_not_regress else None

    def metrics(self) -> frozenset[str]:
        """The names of all fields of METRICS that any condition has."""
        parts = (self.minimum, self.maximum, self.base, self.served)
        return frozenset(name for part in parts for name, _ in _given(part))


class KeptEvaluation(Tolerant):
    """The evaluation that a registry keeps with a version."""

    facts: EvaluationFacts
    records_digest: str
    """`sha256:` over the held-out records in tokens, the prompts and the length of answers: equal digests were measured alike."""


@dataclass(frozen=True)
class Served:
    """The version that the name stands for."""

    digest: str
    evaluation: KeptEvaluation | None


def why_refused(
    gate: Gate | None,
    evaluation: EvaluationFacts | None,
    served: Served | None = None,
    records_digest: str | None = None,
) -> str | None:
    """Every condition that is not met and by how much, in one sentence; None if the gate lets the model pass.

    Args:
        gate: None lets everything pass.
        evaluation: what was measured; None counts as nothing measured.
        served: the version to compare with; None: there is none, or it is not known here.
        records_digest: what `evaluation` was measured on.
    """
    if gate is None:
        return None
    tuned, base = _measured(evaluation, "tuned"), _measured(evaluation, "base")
    problems = [
        *_beyond(gate.minimum, tuned, "minimum"),
        *_beyond(gate.maximum, tuned, "maximum"),
        *_worse(gate.base, tuned, base, "the base model"),
    ]
    if served is not None and gate.served is not None:
        problems += _worse_than_served(gate.served, tuned, served, records_digest)
    if not problems:
        return None
    return f"nothing is published, as evaluation.gate is not met: {'; '.join(problems)}"


def never_measured(gate: Gate | None, *, has_records: bool, has_prompts: bool) -> tuple[str, ...]:
    """The metrics of a gate, by their names in the spec, that data without held-out records or prompts can't have."""
    missing = {"prompts"} if has_records and not has_prompts else set()
    missing |= set() if has_records else {"records", "prompts", "pairs"}
    names = gate.metrics() if gate else ()
    return tuple(spelt(name) for name in METRICS if name in names and METRICS[name].needs in missing)


def _given(part: Contract | None) -> Iterator[tuple[str, float]]:
    """The fields that are set."""
    for name in type(part).model_fields if part is not None else ():
        value = getattr(part, name)
        if value is not None:
            yield name, value


def _measured(evaluation: EvaluationFacts | None, model: Literal["base", "tuned"]) -> Mapping[str, float]:
    """The metrics of one model that were measured."""
    if evaluation is None:
        return {}
    scores: Scores = getattr(evaluation, model)
    found = {"loss": scores.loss, "perplexity": scores.perplexity}
    if scores.prompts:
        found |= {"exact_match": scores.exact_match, "rouge_l": scores.rouge_l}
    if evaluation.preferences is not None:
        found["preference_accuracy"] = getattr(evaluation.preferences, f"{model}_accuracy")
    return found


def _excess(name: str, found: float, bound: float) -> float:
    """The distance of a value from a bound; positive on the wrong side, negative on the right side."""
    return found - bound if METRICS[name].is_loss else bound - found


def _beyond(bounds: Contract | None, tuned: Mapping[str, float], called: str) -> Iterator[str]:
    for name, bound in _given(bounds):
        if name not in tuned:
            yield f"{spelt(name)} was not measured"
            continue
        by = _excess(name, tuned[name], bound)
        if by > _EQUAL_WITHIN:
            side = "above" if METRICS[name].is_loss else "below"
            yield f"{spelt(name)} is {tuned[name]:.4g}, {by:.3g} {side} the {called} of {bound:.4g}"


def _worse(
    tolerances: Tolerances | None, tuned: Mapping[str, float], reference: Mapping[str, float], called: str
) -> Iterator[str]:
    for name, allowed in _given(tolerances):
        if name not in tuned or name not in reference:
            yield f"{spelt(name)} was not measured" + (f" of {called}" if name in tuned else "")
            continue
        by = _excess(name, tuned[name], reference[name])
        if by > allowed + _EQUAL_WITHIN:
            yield (
                f"{spelt(name)} is {tuned[name]:.4g}, {by:.3g} worse than the {reference[name]:.4g} of {called}"
                f" ({allowed:.3g} is allowed)"
            )


def _worse_than_served(
    tolerances: Tolerances, tuned: Mapping[str, float], served: Served, records_digest: str | None
) -> Iterable[str]:
    called, kept = f"the version now served ({served.digest[:19]})", served.evaluation
    if kept is None:
        problem = f"{called} keeps no evaluation to compare with; try mustNotRegress.base in a new job, which then keeps one"
        return (problem,)
    if kept.records_digest != records_digest:
        problem = (
            f"{called} was measured on other held-out records, prompts or lengths, so the two do not compare; try the"
            " dataset.test and the evaluation of its job, or mustNotRegress.base"
        )
        return (problem,)
    return _worse(tolerances, tuned, _measured(kept.facts, "tuned"), called)


def spelt(name: str) -> str:
    """A metric as the spec writes it: `rouge_l` is `rougeL`."""
    return str(Tolerances.model_fields[name].alias)
