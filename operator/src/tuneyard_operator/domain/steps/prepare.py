# SPDX-License-Identifier: Apache-2.0
"""DataReady: the prepare stage has fetched and checked model and data."""

from tuneyard_api import reasons
from tuneyard_api.pod_contract import PrepareFacts, Stage
from tuneyard_api.status import ConditionType

from tuneyard_operator.domain.stages import PODS, Running, Work, carry
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
