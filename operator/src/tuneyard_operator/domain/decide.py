# SPDX-License-Identifier: Apache-2.0
"""Turns what was observed into actions: walks a job's steps in order; each is met, not met yet, or can never be met.

Reading STEPS is reading the life of a job. A pass walks them until one is not done; what is done already is in
status with its facts and is never looked at again, so a restart repeats nothing, whatever has been deleted since.
docs/adr/0002-operator-core.md has the reasons, and what was tried instead.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from tuneyard_api import names, reasons
from tuneyard_api.status import ConditionType, FineTuneJobStatus

from tuneyard_operator.domain.acceptance import accept
from tuneyard_operator.domain.cleanup import clean_up
from tuneyard_operator.domain.conditions import api_time, is_true, read_time
from tuneyard_operator.domain.deadlines import why_late
from tuneyard_operator.domain.decision import Decision, SetFinalizers
from tuneyard_operator.domain.deletion import decide_deletion, end_customizations, finalizers_to_set
from tuneyard_operator.domain.frozen import Frozen
from tuneyard_operator.domain.holding import why_held_back
from tuneyard_operator.domain.interventions import end_late, hold_or_release
from tuneyard_operator.domain.ledger import account
from tuneyard_operator.domain.observed import Observed
from tuneyard_operator.domain.report import Report
from tuneyard_operator.domain.stages import Work
from tuneyard_operator.domain.state import is_terminal
from tuneyard_operator.domain.steps.plan import plan
from tuneyard_operator.domain.steps.prepare import prepare
from tuneyard_operator.domain.steps.publish import publish
from tuneyard_operator.domain.steps.serve import serve
from tuneyard_operator.domain.steps.step import RECHECK_SECONDS
from tuneyard_operator.domain.steps.train import comparison_text, train
from tuneyard_operator.domain.verdict import Verdict

STEPS: tuple[Callable[[Work], float | None], ...] = (plan, prepare, train, publish, serve)
"""The steps after acceptance, in order. A step that is done returns None; else the seconds after which to look again."""


def decide(seen: Observed, now: datetime) -> Decision:
    """The decision of this pass. A terminal job is only cleaned up. Deciding again after applying changes nothing."""
    if seen.deletion is not None:
        return decide_deletion(seen, now)
    finalizers = finalizers_to_set(seen.live, seen.status, seen.finalizers)
    if finalizers is not None:
        return Decision((SetFinalizers(finalizers),), seen.status, 0.0)
    if is_terminal(seen.status.conditions):
        if names.CUSTOMIZATION_FINALIZER in seen.finalizers:
            return end_customizations(seen, read_time(seen.status.ended or api_time(now)), now)
        return clean_up(seen, now)
    decision = _carry_on(seen, now)
    return replace(decision, status=account(seen, decision.status, now))


def _carry_on(seen: Observed, now: datetime) -> Decision:
    """Accept a job that is not terminal, then walk the steps."""
    report, live = Report(seen.status, seen.generation, now), seen.live
    has_begun = seen.status.plan is not None or any(job.owner_uid == seen.uid for job in seen.jobs)
    held_back = why_held_back(seen, now)
    hold = held_back if isinstance(held_back, Verdict) else None
    if hold is not None and not has_begun:
        report.hold(hold)
        return Decision((), report.finish(), None, tuple(report.notes))
    if hold is None:
        report.release(reasons.RESUMED, "nothing holds it back any more")
    late = None if hold is not None else why_late(seen, live.deadlines, now)
    frozen = _begin(seen, report)
    if isinstance(frozen, Verdict):
        return _not_begun(report, frozen, late)
    work = Work(seen, report, frozen, now, hold)
    if isinstance(late, Verdict) and end_late(work, late):
        return Decision(tuple(work.actions), report.finish(), None, tuple(report.notes))
    requeue: float | None = None
    for step in STEPS:
        stop = step(work)
        if stop is not None:
            requeue = stop
            break
    else:
        report.succeed(_summary(report.status))
    if is_terminal(report.status.conditions):
        requeue = None
    elif requeue is not None:
        requeue = min([requeue, *(each for each in (late, held_back) if isinstance(each, float))])
    if hold is not None and requeue is not None:
        requeue = hold_or_release(report, hold, requeue)
    return Decision(tuple(work.actions), report.finish(), requeue, tuple(report.notes))


def _not_begun(report: Report, verdict: Verdict, late: Verdict | float | None) -> Decision:
    """The decision for a job that is not accepted (yet), or whose deadline has passed before that."""
    if isinstance(late, Verdict) and not verdict.final:
        report.unmet(ConditionType.ACCEPTED, late)
        verdict = late
    requeue = None if verdict.final else min([RECHECK_SECONDS, *([late] if isinstance(late, float) else [])])
    return Decision((), report.finish(), requeue, tuple(report.notes))


def needs_claims(seen: Observed) -> bool:
    """Whether the claims of the namespace must be known to decide."""
    return seen.frozen is None and not is_true(seen.status.conditions, ConditionType.ACCEPTED)


def _begin(seen: Observed, report: Report) -> Frozen | Verdict:
    """The plan of an accepted job: the frozen one, or the one that it starts with now."""
    frozen = seen.frozen or accept(seen)
    started = seen.status.plan
    if isinstance(frozen, Frozen) and started is not None and frozen.plan.digest != started.digest:
        gone = "the ConfigMap of the plan was deleted, and job or runtime have changed since the start"
        frozen = Verdict(reasons.PLAN_LOST, gone, final=True)
    if isinstance(frozen, Verdict):
        report.unmet(ConditionType.ACCEPTED if started is None else ConditionType.PLANNED, frozen)
        return frozen
    if not report.is_met(ConditionType.ACCEPTED):
        method, runtime = frozen.plan.resolved.method, frozen.plan.resolved.runtime.name
        report.met(ConditionType.ACCEPTED, reasons.ACCEPTED, f"{method} on runtime {runtime}")
        report.change(started=api_time(report.now), waiting_for=None)
    return frozen


def _summary(status: FineTuneJobStatus) -> str:
    result = status.result
    name = result.adapter.name if result and result.adapter else "the adapter"
    where = f" and served at {result.endpoint}" if result and result.endpoint else ""
    gain = f"; {comparison_text(result.metrics)}" if result and result.metrics else ""
    return f"adapter {name} is published{where}{gain}"
