# SPDX-License-Identifier: Apache-2.0
"""The dashboard: its panels as typed data, and the JSON that Grafana reads.

Only what all Grafana releases since 9 read is written: panels, targets, units and one variable for the data source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tuneyard_api import series

TITLE, UID = "Tuneyard FineTuneJobs", "tuneyard-finetunejobs"
WIDTH, HEIGHT, COLUMNS = 8, 8, 24
_USEFUL, _HELD = series.USEFUL_SECONDS.sample, series.HELD_SECONDS.sample
Unit = Literal["short", "s", "percentunit", "reqps", "ops"]


@dataclass(frozen=True)
class Query:
    """A PromQL expression, and how its series are called: text with `{{label}}`."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """Lines over time."""

    title: str
    about: str
    """What is seen, in one sentence."""
    unit: Unit
    queries: tuple[Query, ...]


def _quantiles(histogram: series.Series, window: str) -> tuple[Query, ...]:
    return tuple(
        Query(
            f"histogram_quantile({share}, sum by (le) (increase({histogram.sample}[{window}])))",
            f"p{share * 100:g}",
        )
        for share in (0.5, 0.9)
    )


PANELS: Sequence[Panel] = (
    Panel("Jobs by state", "FineTuneJobs of the cluster.", "short", (
        Query(f"sum by (state) ({series.JOBS.name})", "{{state}}"),
    )),
    Panel("Why jobs wait", "Jobs that are not running, by what they wait for.", "short", (
        Query(f'sum by (reason) ({series.JOBS.name}{{state=~"Pending|Queued|Waiting"}})', "{{reason}}"),
    )),
    Panel("Longest wait", "How long the job that waits longest has been in its step.", "s", (
        Query(f"max by (state) ({series.LONGEST_WAIT.name})", "{{state}}"),
    )),
    Panel("GPUs", "GPUs that jobs train on or wait for.", "short", (
        Query(f"sum by (state) ({series.GPUS.name})", "{{state}}"),
    )),
    Panel("Tokens per second", "Trained over all jobs.", "ops", (
        Query(f"sum({series.TOKENS_PER_SECOND.name})", "tokens"),
    )),
    Panel("Goodput", "Of the GPU time of trainings that ended within a day, the share in steps that count.", "percentunit", (
        Query(f"sum(increase({_USEFUL}[1d])) / (sum(increase({_HELD}[1d])) > 0)", "goodput"),
    )),
    Panel("Time until training runs", "Queue, node, image and volumes; attempts of the last hour.", "s",
        _quantiles(series.QUEUE_SECONDS, "1h")),
    Panel("From published to served", "Adapters of the last hour.", "s", _quantiles(series.SERVED_SECONDS, "1h")),
    Panel("Ended jobs", "Within the last hour, by state and reason.", "short", (
        Query(f"sum by (state, reason) (increase({series.JOB_ENDS.sample}[1h])) > 0", "{{state}} {{reason}}"),
    )),
    Panel("Failed attempts", "Within the last hour, by failure class; those that were tried again too.", "short", (
        Query(f"sum by (failure_class) (increase({series.ATTEMPT_FAILURES.sample}[1h])) > 0", "{{failure_class}}"),
    )),
    Panel("Passes of the operator", "Duration of a pass, and jobs that wait for one.", "s", (
        *_quantiles(series.PASS_SECONDS, "5m"),
        Query(f"sum({series.QUEUE_LENGTH.name})", "jobs that wait"),
        Query(f"sum(increase({series.PASS_ERRORS.sample}[5m]))", "failed passes"),
    )),
    Panel("Requests to the Kubernetes API", "By answer; code 0 means no answer.", "reqps", (
        Query(f"sum by (code) (rate({series.API_REQUESTS.sample}[5m]))", "{{code}}"),
    )),
)  # fmt: skip


def build_dashboard() -> Mapping[str, Any]:
    """The dashboard as Grafana's JSON."""
    return {
        "uid": UID,
        "title": TITLE,
        "tags": ["tuneyard"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                }
            ]
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, panel: Panel) -> Mapping[str, Any]:
    in_row = COLUMNS // WIDTH
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": source,
        "gridPos": {
            "x": number % in_row * WIDTH,
            "y": number // in_row * HEIGHT,
            "w": WIDTH,
            "h": HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": source,
                "expr": query.expression,
                "legendFormat": query.legend,
            }
            for place, query in enumerate(panel.queries)
        ],
    }
