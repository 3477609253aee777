# SPDX-License-Identifier: Apache-2.0
"""Served: the server of the base model answers with the adapter; no pod of the job takes part in it."""

from datetime import timedelta

from tuneyard_api import reasons
from tuneyard_api.status import ConditionType

from tuneyard_operator.domain.conditions import read_time
from tuneyard_operator.domain.serving import POLL_EVERY, Serving, why_not_served
from tuneyard_operator.domain.stages import Work
from tuneyard_operator.domain.steps.step import leave_unmet


def serve(work: Work) -> float | None:
    """Served: every ready replica of the server has answered with the adapter."""
    destination, report = work.frozen.plan.destination, work.report
    if destination is None or report.is_met(ConditionType.SERVED):
        return None
    if work.hold is not None:
        return leave_unmet(work, ConditionType.SERVED, work.hold)
    moments = [
        read_time(condition.last_transition_time)
        for condition in report.status.conditions
        if condition.type in {ConditionType.PUBLISHED, ConditionType.SUSPENDED}
    ]
    since = max(moments, default=work.now)
    serving = Serving(
        endpoint=destination.endpoint,
        adapter=_adapter_name(work),
        answers=work.seen.served,
        waited=work.now - since,
        timeout=timedelta(seconds=work.frozen.plan.serve_timeout_seconds),
    )
    verdict = why_not_served(serving)
    if verdict is not None:
        # The first question is asked at once: the pass that published could not ask it.
        return leave_unmet(
            work, ConditionType.SERVED, verdict, 0.0 if serving.answers is None else POLL_EVERY
        )
    replicas = len(serving.answers or ())
    by = f"{replicas} replicas of " if replicas > 1 else ""
    report.met(
        ConditionType.SERVED,
        reasons.SERVED,
        f"{by}{destination.endpoint} {'answer' if by else 'answers'} with {serving.adapter}",
    )
    report.change_result(served_after_seconds=round(serving.waited.total_seconds(), 1))
    return None


def _adapter_name(work: Work) -> str:
    """The name under which the adapter was published, which a service may have given it."""
    result = work.report.status.result
    return result.adapter.name if result and result.adapter else work.frozen.plan.resolved.adapter_name
