# SPDX-License-Identifier: Apache-2.0
"""Follows one FineTuneJob and reports each change once. Pure: it turns statuses into lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuneyard_workflows.checks import NOTHING

TERMINAL = frozenset({"Succeeded", "Failed"})


@dataclass
class Follower:
    """Remembers the printed lines, so that only news is printed."""

    _said: set[tuple[str, str, str]] = field(default_factory=set)
    _step: tuple[str, int] = ("", -1)
    _waiting: str = ""

    def news(self, status: Mapping[str, Any]) -> list[str]:
        """Lines for what is new in `status`, in the order of the job's life."""
        lines = []
        for condition in status.get("conditions", ()):
            key = (condition["type"], condition["status"], condition["reason"])
            if condition["status"] == "True" and key not in self._said:
                self._said.add(key)
                lines.append(f"{condition['type']:<10} {condition['message']}")
        waiting = status.get("waitingFor")
        text = (
            f"{'waits for':<10} {waiting['kind']} {waiting['name']}: {waiting['reason']}: {waiting['message']}"
            if waiting
            else ""
        )
        if text and text != self._waiting:
            lines.append(text)
        self._waiting = text
        progress = status.get("progress")
        if progress:
            phase, step = progress.get("phase", "training"), progress["step"]
            if phase != self._step[0] or step > self._step[1]:
                self._step = (phase, step)
                lines.append(f"{phase:<10} {progress_line(progress)}")
        return lines


@dataclass
class WorkflowFollower:
    """Remembers the stages of a workflow of Argo, so that only news is printed."""

    _said: dict[str, str] = field(default_factory=dict)

    def news(self, status: Mapping[str, Any]) -> list[str]:
        """A line for each stage that has come to another phase, in the order in which they started."""
        lines = []
        nodes: Iterable[Mapping[str, Any]] = status.get("nodes", {}).values()
        for node in sorted(nodes, key=lambda each: str(each.get("startedAt"))):
            # A stage is a step that may be tried several times, or one that needs no pod.
            if node["type"] not in ("Retry", "Suspend", "Skipped") or node["displayName"] == NOTHING:
                continue
            words = " ".join(filter(None, (node["phase"].lower(), node.get("message"))))
            if self._said.get(node["id"]) != words:
                self._said[node["id"]] = words
                lines.append(f"{node['displayName']:<10} {words}")
        return lines


def waiting_approval(status: Mapping[str, Any]) -> str | None:
    """The id of the node of a workflow that waits for a person."""
    nodes = status.get("nodes", {}).items()
    return next(
        (key for key, node in nodes if node["type"] == "Suspend" and node["phase"] == "Running"), None
    )


def progress_line(progress: Mapping[str, Any]) -> str:
    """`step 40/300 (13 %)  loss 3.214  5120 tokens/s  48s left`, without what is unknown."""
    parts = [f"step {progress['step']}/{progress['of']} ({progress['percent']} %)"]
    if progress.get("loss") is not None:
        parts.append(f"loss {progress['loss']:.3f}")
    if progress.get("tokensPerSecond"):
        parts.append(f"{progress['tokensPerSecond']:.0f} tokens/s")
    if progress.get("eta"):
        parts.append(f"{progress['eta']} left")
    return "  ".join(parts)


def score_table(metrics: Mapping[str, Any]) -> list[str]:
    """Base and tuned side by side; `metrics` is status.result.metrics."""
    rows = (
        ("held-out loss", "loss", ".3f"),
        ("perplexity", "perplexity", ".1f"),
        ("exact match", "exactMatch", ".1%"),
        ("ROUGE-L", "rougeL", ".3f"),
    )
    lines = [f"{'':<15}{'base':>10}{'tuned':>10}"]
    for title, name, form in rows:
        base, tuned = (format(metrics[model][name], form) for model in ("base", "tuned"))
        lines.append(f"{title:<15}{base:>10}{tuned:>10}")
    return [*lines, f"on {metrics['tuned']['prompts']} held-out prompts"]
