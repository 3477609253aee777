# SPDX-License-Identifier: Apache-2.0
"""Removes the children of a terminal job: stray Jobs at once, the others after spec.ttl. The FineTuneJob itself stays.

A FineTuneJob that lives in git would be created again by whoever deletes it, and trained again.
"""

from datetime import datetime, timedelta

from tuneyard_api.status import FineTuneJobStatus

from tuneyard_operator.domain.conditions import api_time, read_time
from tuneyard_operator.domain.decision import Decision, Delete
from tuneyard_operator.domain.observed import Observed


def cleaning_due(seen: Observed) -> datetime | None:
    """When the children of a terminal job must be removed, or None when they are removed already."""
    status = seen.status
    if status.cleaned is not None or status.ended is None:
        return None
    ttl = seen.live.ttl
    seconds = ttl.after_success_seconds if _succeeded(status) else ttl.after_failure_seconds
    return read_time(status.ended) + timedelta(seconds=seconds)


def clean_up(seen: Observed, now: datetime) -> Decision:
    """Clean up after a terminal job; its status only ever gains `cleaned`."""
    strays = tuple(Delete("Job", job.name, job.uid) for job in seen.jobs if job.owner_uid == seen.uid)
    due = cleaning_due(seen)
    if due is None or now < due:
        left = (due - now).total_seconds() + 0.5 if due is not None else None
        return Decision(strays, seen.status, left)
    leftovers = tuple(Delete(each.kind, each.name, each.uid) for each in seen.leftovers)
    return Decision(strays + leftovers, seen.status.model_copy(update={"cleaned": api_time(now)}))


def _succeeded(status: FineTuneJobStatus) -> bool:
    """Whether the job succeeded. Only the condition Succeeded tells: the store keeps nothing else of a terminal job."""
    return bool(status.conditions) and status.conditions[-1].status == "True"
