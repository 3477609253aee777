# SPDX-License-Identifier: Apache-2.0
"""Finds which ResourceQuota refuses a pod, from the API server's message, and what would satisfy it.

If several quotas are full, the API server names one of them, a different one at each try. So what was heard
in the last minutes is remembered, and the first by name is the one that status names.
"""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import InvalidOperation

from tuneyard_api import reasons
from tuneyard_api.pod_contract import Stage
from tuneyard_api.quantities import quantity_value

from tuneyard_operator.domain.observed import SeenEvent, SeenJob
from tuneyard_operator.domain.verdict import Verdict

REMEMBERED = timedelta(minutes=10)
"""How long a quota that is not named again counts: the Job controller retries each minute, and posts each fifth event."""
_QUOTA = re.compile(r"(?:exceeded|failed) quota: ([^,:\s]+)")
_EXCEEDED = re.compile(r"exceeded quota: ([^,:\s]+), requested: (\S+), used: (\S+), limited: (\S+)")
_FLAVORS = re.compile(r"insufficient (?:unused )?quota for \S+ in flavor [^,\s]+")
_NEVER = re.compile(r"insufficient quota for \S+ in flavor [^,\s]+,[^,]*(?:, [^,]*)?> maximum capacity \(")
_CPU_LIMIT_MISSING = re.compile(r"failed quota: .*must specify (?:.*; )?limits\.cpu for: ")


def quota_named_in(message: str) -> str | None:
    """The ResourceQuota that a refusal names."""
    found = _QUOTA.search(message)
    return found[1] if found else None


def is_exceeded(message: str) -> bool:
    """Whether the quota is used up; otherwise it requires a request or limit that the pod does not set."""
    return "exceeded quota: " in message


def too_small_quota(message: str) -> Verdict | None:
    """The end of a job whose pod asks for more than the whole ResourceQuota that refuses it.

    `message` is the API server's: `exceeded quota: NAME, requested: a=8, used: a=0, limited: a=4`.
    """
    found = _EXCEEDED.search(message)
    if found is None:
        return None
    name, requested, _, limited = found.groups()
    limits = _quantities(limited)
    over = [
        f"{wanted} of {resource}, and the whole quota is {limits[resource]}"
        for resource, wanted in _quantities(requested).items()
        if resource in limits and _is_more(wanted, limits[resource])
    ]
    if not over:
        return None
    return _too_small(f"ResourceQuota {name}", f"the pod asks for {'; '.join(over)}")


def too_small_queue(cluster_queue: str, message: str) -> Verdict | None:
    """The end of a job that asks for more than its ClusterQueue can ever have, with all that it may borrow.

    `message` is Kueue's, which says for each flavor either that it is in use or that its capacity is smaller.
    """
    never = _NEVER.findall(message)
    if not never or len(never) < len(_FLAVORS.findall(message)):
        return None
    return _too_small(f"ClusterQueue {cluster_queue}", message)


def _too_small(holder: str, why: str) -> Verdict:
    message = f"{holder} can never hold this training: {why}; try fewer GPUs, or ask for more quota and submit it again"
    return Verdict(reasons.QUOTA_TOO_SMALL, message, final=True)


def _quantities(text: str) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in text.split(","))


def _is_more(wanted: str, limit: str) -> bool:
    try:
        return quantity_value(wanted) > quantity_value(limit)
    except InvalidOperation:
        return False


def advice_for(message: str, stage: Stage) -> str:
    """The advice for a quota that requires a CPU limit; empty when waiting helps."""
    if not _CPU_LIMIT_MISSING.search(message):
        return ""
    own = "trainResources" if stage is Stage.TRAIN else "prepareResources"
    job = " or resources.cpuLimitCores of the job" if stage is Stage.TRAIN else ""
    return (
        "; try a LimitRange with a default limit for cpu, which this job's next pods get, or for later jobs"
        f" {own}.cpuLimit of the FineTuneRuntime{job}"
    )


def refusals_of(events: Iterable[SeenEvent], job: str) -> list[SeenEvent]:
    """The Job controller's messages about pods that it could not create, oldest first."""
    about = (each for each in events if (each.kind, each.name, each.reason) == ("Job", job, "FailedCreate"))
    return sorted(about, key=lambda event: event.at)


def remember(former: Iterable[SeenEvent], events: Iterable[SeenEvent], job: str) -> tuple[SeenEvent, ...]:
    """The latest refusal of each quota, from the remembered and the new refusals."""
    return tuple(
        {quota_named_in(each.message): each for each in refusals_of([*former, *events], job)}.values()
    )


def refusal_to_tell(events: Iterable[SeenEvent], job: SeenJob, now: datetime) -> SeenEvent | None:
    """The refusal to report: that of the quota, first by name, that refused in the last minutes, else the latest."""
    refusals = refusals_of(events, job.name)
    if not refusals or quota_named_in(refusals[-1].message) is None:
        return refusals[-1] if refusals else None
    by_quota = {
        quota_named_in(each.message) or "": each
        for each in refusals
        if now - each.at <= REMEMBERED or each is refusals[-1]
    }
    return by_quota[min(filter(None, by_quota))]
