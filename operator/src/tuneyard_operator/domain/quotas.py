# SPDX-License-Identifier: Apache-2.0
"""Which ResourceQuota refuses a pod, in the API server's words, and what meets it.

Of several quotas without room the API server names one, another one at each try of the Job controller. So what was heard
in the last minutes is remembered, and the first by name is the one that status names.
"""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from tuneyard_api.pod_contract import Stage

from tuneyard_operator.domain.observed import SeenEvent, SeenJob

REMEMBERED = timedelta(minutes=10)
"""How long a quota that is not named again still counts: the Job controller tries each minute, its events come each fifth."""
_QUOTA = re.compile(r"(?:exceeded|failed) quota: ([^,:\s]+)")
_CPU_LIMIT_MISSING = re.compile(r"failed quota: .*must specify (?:.*; )?limits\.cpu for: ")


def quota_named_in(message: str) -> str | None:
    """The ResourceQuota that a refusal names."""
    found = _QUOTA.search(message)
    return found[1] if found else None


def is_exceeded(message: str) -> bool:
    """Whether a quota has no room left; else it is one that wants a number which the pod does not have."""
    return "exceeded quota: " in message


def advice_for(message: str, stage: Stage) -> str:
    """What to try where a quota wants a CPU limit; nothing where waiting helps."""
    if not _CPU_LIMIT_MISSING.search(message):
        return ""
    own = "trainResources" if stage is Stage.TRAIN else "prepareResources"
    job = " or resources.cpuLimitCores of the job" if stage is Stage.TRAIN else ""
    return (
        "; try a LimitRange with a default limit for cpu, which this job's next pods get, or for later jobs"
        f" {own}.cpuLimit of the FineTuneRuntime{job}"
    )


def refusals_of(events: Iterable[SeenEvent], job: str) -> list[SeenEvent]:
    """What the Job controller said of the pods of a Job that it could not make, oldest first."""
    about = (each for each in events if (each.kind, each.name, each.reason) == ("Job", job, "FailedCreate"))
    return sorted(about, key=lambda event: event.at)


def remember(former: Iterable[SeenEvent], events: Iterable[SeenEvent], job: str) -> tuple[SeenEvent, ...]:
    """The latest refusal by each quota, of those that were remembered and those that were heard of now."""
    return tuple(
        {quota_named_in(each.message): each for each in refusals_of([*former, *events], job)}.values()
    )


def refusal_to_tell(events: Iterable[SeenEvent], job: SeenJob, now: datetime) -> SeenEvent | None:
    """The latest refusal; of quotas, that by the first by name of the last minutes."""
    refusals = refusals_of(events, job.name)
    if not refusals or quota_named_in(refusals[-1].message) is None:
        return refusals[-1] if refusals else None
    by_quota = {
        quota_named_in(each.message) or "": each
        for each in refusals
        if now - each.at <= REMEMBERED or each is refusals[-1]
    }
    return by_quota[min(filter(None, by_quota))]
