# SPDX-License-Identifier: Apache-2.0
"""Published: the publish stage has put the adapter into the registry."""

from tuneyard_api import names, reasons
from tuneyard_api.gate import why_refused
from tuneyard_api.pod_contract import FailureClass, PublishFacts, Stage
from tuneyard_api.status import AdapterStatus, ConditionType

from tuneyard_operator.domain.stages import Running, Work, carry
from tuneyard_operator.domain.steps.step import attempt_text, leave_unmet, look_again_after
from tuneyard_operator.domain.verdict import Verdict


def publish(work: Work) -> float | None:
    """Published: the adapter is in the registry, under its name and digest."""
    report = work.report
    if report.is_met(ConditionType.PUBLISHED):
        return None
    measured = report.status.result.metrics if report.status.result is not None else None
    refusal = why_refused(work.frozen.plan.resolved.evaluation.gate, measured)
    if refusal is not None:
        return leave_unmet(
            work, ConditionType.PUBLISHED, Verdict(FailureClass.GATE_FAILED.value, refusal, final=True)
        )
    if work.seen.live.deletion_policy == "Delete" and names.FINALIZER not in work.seen.finalizers:
        # The next pass sets it. Only then is it certain that a published adapter is removed with the job.
        return leave_unmet(
            work, ConditionType.PUBLISHED, Verdict(reasons.PUBLISHING, "is about to publish"), 0.0
        )
    outcome = carry(work, Stage.PUBLISH)
    if isinstance(outcome, Verdict):
        return leave_unmet(work, ConditionType.PUBLISHED, outcome)
    if isinstance(outcome, Running):
        doing = Verdict(reasons.PUBLISHING, f"publishes the adapter ({attempt_text(outcome)})")
        return leave_unmet(work, ConditionType.PUBLISHED, doing, look_again_after(work, outcome))
    facts = PublishFacts.model_validate(outcome.facts)
    report.met(
        ConditionType.PUBLISHED, reasons.PUBLISHED, f"{facts.path}, {facts.size_bytes} bytes, {facts.digest}"
    )
    destination = work.frozen.plan.destination
    served_at = destination.endpoint if destination is not None else None
    adapter = AdapterStatus(name=facts.adapter_name, digest=facts.digest, path=facts.path)
    report.change_result(adapter=adapter, model_name=facts.adapter_name, endpoint=served_at)
    return None
