# SPDX-License-Identifier: Apache-2.0
"""Published: the publish stage has put the adapter into the registry."""

from tuneyard_api import names, reasons
from tuneyard_api.gate import why_refused
from tuneyard_api.pod_contract import FailureClass, PublishFacts, Stage
from tuneyard_api.status import AdapterStatus, ConditionType

from tuneyard_operator.domain.conditions import is_true
from tuneyard_operator.domain.customizations import ServiceTrouble
from tuneyard_operator.domain.deadlines import running_attempt
from tuneyard_operator.domain.failures import good_result
from tuneyard_operator.domain.objects.customization import output_model
from tuneyard_operator.domain.observed import Observed
from tuneyard_operator.domain.service_stage import is_by_service, trouble_verdict
from tuneyard_operator.domain.stages import PODS, Running, Work, carry
from tuneyard_operator.domain.steps.step import attempt_text, leave_unmet, look_again_after
from tuneyard_operator.domain.verdict import Verdict

POLL_EVERY = 5.0
"""Seconds between two looks at a model that a service uploads."""


def publish(work: Work) -> float | None:
    """Published: the adapter is in the registry, under its name and digest."""
    report = work.report
    if report.is_met(ConditionType.PUBLISHED):
        return None
    held_up = _why_not_yet(work)
    if held_up is not None:
        return leave_unmet(work, ConditionType.PUBLISHED, held_up)
    if is_by_service(work):
        return _find_output(work)
    outcome = carry(work, Stage.PUBLISH, PODS)
    if isinstance(outcome, Verdict):
        return leave_unmet(work, ConditionType.PUBLISHED, outcome)
    if isinstance(outcome, Running):
        doing = Verdict(reasons.PUBLISHING, f"publishes the adapter ({attempt_text(outcome)})")
        return leave_unmet(work, ConditionType.PUBLISHED, doing, look_again_after(work, outcome))
    _published(work, PublishFacts.model_validate(outcome.facts))
    return None


def _why_not_yet(work: Work) -> Verdict | None:
    """What is in the way of a publication: its gate, or a finalizer that the next pass sets."""
    result = work.report.status.result
    refusal = why_refused(work.frozen.plan.resolved.evaluation.gate, result.metrics if result else None)
    if refusal is not None:
        return Verdict(FailureClass.GATE_FAILED.value, refusal, final=True)
    if work.seen.live.deletion_policy == "Delete" and names.FINALIZER not in work.seen.finalizers:
        # Only then is it certain that a published adapter is removed with the job.
        return Verdict(reasons.PUBLISHING, "is about to publish", again_after=0.0)
    return None


def _find_output(work: Work) -> float | None:
    """Published by a service: the model that the training left is whole in its stores."""
    output = work.seen.output
    attempt = work.report.latest_attempt(Stage.TRAIN)
    if isinstance(output, ServiceTrouble):
        return leave_unmet(work, ConditionType.PUBLISHED, trouble_verdict(output))
    if output is None or attempt is None or output.state == "uploading":
        # The first question is asked at once: the pass that found the training over could not ask it.
        doing = Verdict(reasons.PUBLISHING, "the service uploads the model that it has trained")
        return leave_unmet(work, ConditionType.PUBLISHED, doing, 0.0 if output is None else POLL_EVERY)
    if output.state == "failed":
        message = f"the service could not upload its model to {output.place}"
        return leave_unmet(
            work, ConditionType.PUBLISHED, Verdict(reasons.SERVICE_REFUSED, message, final=True)
        )
    name = output_model(work.owner, work.frozen, attempt.number)
    _published(
        work,
        PublishFacts(
            adapter_name=name, digest=output.digest, path=output.place, size_bytes=output.size_bytes
        ),
    )
    return None


def published_adapter(seen: Observed) -> AdapterStatus | None:
    """The adapter that is in the registry, as status says or a publish pod that has ended well."""
    if is_true(seen.status.conditions, ConditionType.PUBLISHED):
        return seen.status.result.adapter if seen.status.result is not None else None
    attempt, plan = running_attempt(seen.status), seen.status.plan
    if attempt is None or attempt.stage is not Stage.PUBLISH or plan is None:
        return None
    result = good_result(seen.own_pods_of(Stage.PUBLISH, attempt.number), Stage.PUBLISH, plan.digest)
    return None if result is None else _adapter_of(PublishFacts.model_validate(result.facts))


def _adapter_of(facts: PublishFacts) -> AdapterStatus:
    return AdapterStatus(name=facts.adapter_name, digest=facts.digest, path=facts.path)


def _published(work: Work, facts: PublishFacts) -> None:
    report, destination = work.report, work.frozen.plan.destination
    said = (f"{facts.path}, {facts.size_bytes} bytes, {facts.digest}", *facts.warnings)
    report.met(ConditionType.PUBLISHED, reasons.PUBLISHED, "; ".join(said))
    report.change(tracking=facts.tracking or report.status.tracking)
    served_at = destination.endpoint if destination is not None else None
    report.change_result(adapter=_adapter_of(facts), model_name=facts.adapter_name, endpoint=served_at)
