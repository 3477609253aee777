# SPDX-License-Identifier: Apache-2.0
"""Interrupts the normal course of a job: a deadline ends it, a person suspends it, or its budget is spent."""

from tuneyard_api import reasons
from tuneyard_api.pod_contract import Stage

from tuneyard_operator.domain.conditions import find_condition
from tuneyard_operator.domain.deadlines import running_attempt
from tuneyard_operator.domain.decision import Delete
from tuneyard_operator.domain.report import Report
from tuneyard_operator.domain.service_stage import cancel_late, is_by_service
from tuneyard_operator.domain.stages import Work, has_succeeded
from tuneyard_operator.domain.state import first_unmet
from tuneyard_operator.domain.verdict import Verdict


def end_late(work: Work, late: Verdict) -> bool:
    """End the job by its deadline, unless what runs has just ended well."""
    attempt = running_attempt(work.seen.status)
    if attempt is not None:
        if has_succeeded(work.seen, work.frozen, attempt):
            return False
        if attempt.stage is Stage.TRAIN and is_by_service(work) and not cancel_late(work, attempt):
            return False
        job = work.seen.job_of(attempt.stage, attempt.number)
        if job is not None and not job.is_over and not job.deleting:
            work.actions.append(Delete("Job", job.name, job.uid, is_by_status=True))
        work.report.end(work.report.note(attempt, message=late.message), None)
    work.report.unmet(first_unmet(work.seen.status.conditions), late)
    return True


def hold_or_release(report: Report, hold: Verdict, requeue: float) -> float | None:
    """Hold the job once nothing of it runs; returns the seconds until the next look: only a change makes a held job due."""
    step = find_condition(report.status.conditions, first_unmet(report.status.conditions))
    if step is not None and step.reason == hold.reason:
        report.hold(hold)
        return None
    report.release(reasons.SUSPENDING, "pods of the job still run")
    return requeue
