# SPDX-License-Identifier: Apache-2.0
"""DataReady: the prepare stage has fetched and checked model and data."""

from tuneyard_api import reasons
from tuneyard_api.forecast.memory import GIB
from tuneyard_api.forecast.of_job import asked_product
from tuneyard_api.pod_contract import PrepareFacts, Stage
from tuneyard_api.status import ConditionType

from tuneyard_operator.domain.forecasting import forecast_of, numbers_of, why_it_does_not_fit
from tuneyard_operator.domain.stages import PODS, Running, Work, carry
from tuneyard_operator.domain.steps.plan import shares_text
from tuneyard_operator.domain.steps.step import attempt_text, leave_unmet, look_again_after
from tuneyard_operator.domain.verdict import Verdict


def prepare(work: Work) -> float | None:
    """DataReady: model and data are there, checked, tokenised."""
    report = work.report
    if report.is_met(ConditionType.DATA_READY):
        return None
    outcome = carry(work, Stage.PREPARE, PODS)
    if isinstance(outcome, Verdict):
        return leave_unmet(work, ConditionType.DATA_READY, outcome)
    if isinstance(outcome, Running):
        doing = Verdict(reasons.PREPARING, f"prepares model and data ({attempt_text(outcome)})")
        return leave_unmet(work, ConditionType.DATA_READY, doing, look_again_after(work, outcome))
    facts = PrepareFacts.model_validate(outcome.facts)
    refusal = _plan_again(work, facts)
    if refusal is not None:
        return leave_unmet(work, ConditionType.PLANNED, refusal)
    counts = (
        (facts.truncated_records, "truncated"),
        (facts.duplicate_records, "duplicates"),
        (facts.leaked_records, "leaked"),
        (facts.personal_data_hints, "hints at personal data"),
    )
    found = "".join(f", {count} {what}" for count, what in counts if count)
    report.met(
        ConditionType.DATA_READY,
        reasons.PREPARED,
        f"{facts.train_records} records in {facts.train_sequences} sequences, {facts.train_tokens} tokens{found}",
    )
    report.change_result(dataset_digest=facts.dataset_digest, model_revision=facts.model_revision)
    return None


def _plan_again(work: Work, facts: PrepareFacts) -> Verdict | None:
    """Planned, now that model and data are known: what the training takes, or why it does not fit."""
    report, found = work.report, forecast_of(work.frozen, facts)
    if found is None:
        return None
    refusal = why_it_does_not_fit(found)
    chosen, plan = found.work, report.status.plan
    if plan is not None:
        plan = plan.model_copy(
            update={
                "micro_batch_size": chosen.micro_batch,
                "gradient_accumulation": chosen.accumulation,
                "gradient_checkpointing": chosen.is_recomputing,
                "gpu_product": asked_product(work.frozen.spec, work.frozen.runtime),
                "memory_gib": round(found.memory.total / GIB, 1),
                "steps": found.steps,
                "seconds": None if found.seconds is None else round(found.seconds),
                "gpu_hours": None if found.gpu_hours is None else round(found.gpu_hours, 3),
            }
        )
    report.change(plan=plan)
    if refusal is None:
        shares = shares_text(work, chosen.micro_batch, chosen.accumulation)
        report.met(
            ConditionType.PLANNED,
            reasons.PLANNED,
            f"{shares}; {numbers_of(found, work.seen.live.budget.gpu_hours)}",
        )
    return refusal
