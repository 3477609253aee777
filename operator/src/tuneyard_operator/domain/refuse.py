# SPDX-License-Identifier: Apache-2.0
"""Decides what to report when the API server refuses to create an object."""

from datetime import datetime

from tuneyard_api import reasons
from tuneyard_api.status import ConditionType, WaitingFor

from tuneyard_operator.domain.decision import Cancel, Create, Decision, Refusal, Submit
from tuneyard_operator.domain.deletion import decide_refused_deletion
from tuneyard_operator.domain.ledger import account
from tuneyard_operator.domain.observed import Observed
from tuneyard_operator.domain.quotas import is_exceeded, quota_named_in
from tuneyard_operator.domain.report import Report
from tuneyard_operator.domain.service_stage import trouble_verdict
from tuneyard_operator.domain.steps.step import RECHECK_SECONDS
from tuneyard_operator.domain.verdict import Verdict


def refuse(seen: Observed, decision: Decision, refusal: Refusal, now: datetime) -> Decision:
    """The decision that replaces one of whose objects the API server refused.

    What was found out before the refused object is kept; attempts that have not been made are not.
    """
    if seen.deletion is not None:
        return decide_refused_deletion(seen, refusal)
    action = refusal.action
    after = decision.actions[decision.actions.index(action) :]
    unmade = {each.attempt for each in after if isinstance(each, Create | Submit)}
    report = Report(seen.status, seen.generation, now)
    conditions = tuple(
        condition
        for condition in decision.status.conditions
        if _place(condition.type) < _place(action.step)
        or condition.type is ConditionType.SUSPENDED
        or condition in seen.status.conditions
    )
    attempts = tuple(
        attempt
        for attempt in decision.status.attempts
        if (attempt.stage, attempt.number) not in unmade or attempt in seen.status.attempts
    )
    ledger = seen.status.ledger
    kept: dict[str, object] = {"conditions": conditions, "attempts": attempts, "ledger": ledger}
    if action.step is ConditionType.PLANNED:
        kept["plan"] = seen.status.plan
    # The reason for a cancel is written already; what would be true after it is not.
    is_cancel = isinstance(action, Cancel)
    report.status = seen.status if is_cancel else decision.status.model_copy(update=kept)
    if refusal.trouble is not None:
        verdict = trouble_verdict(refusal.trouble)
        requeue = RECHECK_SECONDS if verdict.again_after is None else verdict.again_after
        report.unmet(action.step, verdict)
        return Decision((), report.finish(), None if verdict.final else requeue, tuple(report.notes))
    reason = {
        "Conflict": reasons.NAME_CONFLICT,
        "Forbidden": reasons.QUOTA_EXCEEDED if is_exceeded(refusal.message) else reasons.NOT_ALLOWED,
        "NamespaceTerminating": reasons.NOT_ALLOWED,
        "Invalid": reasons.OBJECT_INVALID,
        "Service": reasons.SERVICE_UNEXPECTED,
    }[refusal.cause]
    message = f"{action.kind} {action.name}: {refusal.message}"
    final = refusal.cause == "Invalid"
    quota = quota_named_in(refusal.message)
    kind, name = (action.kind, action.name) if quota is None else ("ResourceQuota", quota)
    waiting = None if final else WaitingFor(kind=kind, name=name, reason=reason, message=message[:2048])
    report.unmet(action.step, Verdict(reason, message, final=final, waiting_for=waiting))
    status = account(seen, report.finish(), now)
    return Decision((), status, None if final else RECHECK_SECONDS, tuple(report.notes))


def _place(step: ConditionType) -> int:
    return list(ConditionType).index(step)
