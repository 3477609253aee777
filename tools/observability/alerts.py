# SPDX-License-Identifier: Apache-2.0
"""The alert rules. Each has a page in docs/runbooks/ and a case in tests/observability/alerts.test.yaml."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tuneyard_api import series
from tuneyard_api.pod_contract import FailureClass
from tuneyard_api.reasons import BASE_NOT_SERVED, ENDPOINT_UNREACHABLE, SERVE_TIMEOUT, TRIAL_FAILED

RUNBOOKS = "RUNBOOKS"
"""Stands in the rules for the address of the folder with the runbooks, which a value of the chart says."""
GOODPUT = "tuneyard:goodput:ratio1d"
_USEFUL, _HELD = series.USEFUL_SECONDS.sample, series.HELD_SECONDS.sample
_FAILURES, _ENDS = series.ATTEMPT_FAILURES.sample, series.JOB_ENDS.sample
_PLATFORM = f"{FailureClass.ACCELERATOR_MISSING}|{FailureClass.PERMISSION_DENIED}|{FailureClass.DISK_FULL}|{FailureClass.BUG}"
_UNSERVED = f"{SERVE_TIMEOUT}|{ENDPOINT_UNREACHABLE}|{BASE_NOT_SERVED}|{TRIAL_FAILED}"


@dataclass(frozen=True)
class Alert:
    """One alert."""

    name: str
    """Also the name of its runbook."""
    expression: str
    """PromQL that has a value while something is wrong."""
    after: str
    """How long it must last, as Prometheus writes durations."""
    severity: Literal["critical", "warning", "info"]
    summary: str
    """One sentence; `{{ $value }}` and `{{ $labels.x }}` are Prometheus'."""


ALERTS: Sequence[Alert] = (
    Alert(
        "TuneyardOperatorAbsent",
        f"absent({series.LEADER.name} == 1)",
        "10m",
        "critical",
        "No replica of the operator works: no FineTuneJob starts, continues or ends.",
    ),
    Alert(
        "TuneyardPassesFail",
        f"sum(increase({series.PASS_ERRORS.sample}[10m])) > 5",
        "15m",
        "warning",
        "Passes of the operator fail again and again.",
    ),
    Alert(
        "TuneyardFallsBehind",
        f"sum({series.QUEUE_LENGTH.name}) > 100",
        "15m",
        "warning",
        "{{ $value }} FineTuneJobs wait for a pass of the operator.",
    ),
    Alert(
        "TuneyardApiErrors",
        f'sum(rate({series.API_REQUESTS.sample}{{code=~"0|429|5.."}}[10m]))'
        f" / sum(rate({series.API_REQUESTS.sample}[10m])) > 0.1",
        "15m",
        "warning",
        "{{ $value | humanizePercentage }} of the operator's requests to the Kubernetes API fail.",
    ),
    Alert(
        "TuneyardJobWaits",
        f'max({series.LONGEST_WAIT.name}{{state=~"Pending|Waiting"}}) > 3600',
        "5m",
        "warning",
        "A FineTuneJob has waited for {{ $value | humanizeDuration }} for something other than its queue.",
    ),
    Alert(
        "TuneyardJobQueuedForDays",
        f'max({series.LONGEST_WAIT.name}{{state="Queued"}}) > 2 * 86400',
        "15m",
        "info",
        "A FineTuneJob has waited for {{ $value | humanizeDuration }} in its queue.",
    ),
    Alert(
        "TuneyardPlatformFailures",
        f'sum by (failure_class) (increase({_FAILURES}{{failure_class=~"{_PLATFORM}"}}[1h])) > 0.5',
        "0m",
        "warning",
        "Stages fail with {{ $labels.failure_class }}, which whoever writes jobs can seldom mend.",
    ),
    Alert(
        "TuneyardTrainingsHang",
        f'sum(increase({_FAILURES}{{failure_class="{FailureClass.HUNG}"}}[6h])) > 1.5',
        "0m",
        "warning",
        "Trainings hang: at least two were ended and started again within six hours.",
    ),
    Alert(
        "TuneyardInterruptions",
        f'sum(increase({_FAILURES}{{failure_class="{FailureClass.INTERRUPTED}"}}[1h])) > 5',
        "0m",
        "warning",
        "Pods of FineTuneJobs are stopped from outside: {{ $value | humanize }} times within an hour.",
    ),
    Alert(
        "TuneyardMostJobsFail",
        f'sum(increase({_ENDS}{{state="Failed"}}[6h])) > 2.5'
        f' and sum(increase({_ENDS}{{state="Failed"}}[6h])) / sum(increase({_ENDS}[6h])) > 0.5',
        "0m",
        "warning",
        "More than half of the FineTuneJobs that ended within six hours have failed.",
    ),
    Alert(
        "TuneyardAdapterNotServed",
        f'sum(increase({_ENDS}{{reason=~"{_UNSERVED}"}}[1h])) > 0.5',
        "0m",
        "warning",
        "An adapter is published, and its server does not answer with it.",
    ),
    Alert(
        "TuneyardGoodputLow",
        f"{GOODPUT} < 0.7 and sum(increase({_HELD}[1d])) > 4 * 3600",
        "1h",
        "info",
        "Of the GPU time of trainings that ended within a day, {{ $value | humanizePercentage }} went into steps that count.",
    ),
)


def build_rules() -> dict[str, Any]:
    """The content of a file of Prometheus' rules, and of the spec of a PrometheusRule."""
    alerts = [
        {
            "alert": alert.name,
            "expr": alert.expression,
            "for": alert.after,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "runbook_url": f"{RUNBOOKS}/{alert.name}.md"},
        }
        for alert in ALERTS
    ]
    goodput = {"record": GOODPUT, "expr": f"sum(increase({_USEFUL}[1d])) / (sum(increase({_HELD}[1d])) > 0)"}
    return {
        "groups": [
            {"name": "tuneyard.rules", "rules": [goodput]},
            {"name": "tuneyard.alerts", "rules": alerts},
        ]
    }
