# SPDX-License-Identifier: Apache-2.0
"""FineTuneJobs as text for a terminal: a table, one job, where its time went, two jobs side by side. Pure.

Colours are left to the caller's `click.style`, which click drops where the output is no terminal.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click
from tuneyard_api.ledger import LedgerStatus
from tuneyard_api.status import State

from tuneyard.client.comparing import Comparison, Difference, Value
from tuneyard.client.job import Job
from tuneyard.client.usage import Usage

COLOURS = {
    State.SUCCEEDED: "green",
    State.FAILED: "red",
    State.WAITING: "yellow",
    State.QUEUED: "yellow",
    State.SUSPENDED: "yellow",
    State.TRAINING: "cyan",
}
_BAR = 24
"""Width of a progress bar, in characters."""
_MARKS = {"True": ("green", "✓"), "False": ("yellow", "·"), "Unknown": ("yellow", "?")}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns padded to their longest cell, two spaces apart; colours do not count."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(click.unstyle(row[column])) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        padded = (
            cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(row, widths, strict=True)
        )
        lines.append("  ".join(padded).rstrip() + "\n")
    return "".join(lines)


def jobs_table(jobs: Sequence[Job], now: datetime, *, with_namespace: bool) -> str:
    """What `list` prints."""
    header = ["NAME", "STATE", "PROGRESS", "LOSS", "TOK/S", "ETA", "WAITING", "ADAPTER", "GPU-H", "AGE"]
    rows = []
    for job in jobs:
        progress, waiting, result = job.status.progress, job.status.waiting_for, job.status.result
        row = [
            job.name,
            state_text(job),
            progress.text if progress else "",
            _number(progress.loss if progress else None),
            _number(progress.tokens_per_second if progress else None),
            (progress.eta or "") if progress else "",
            waiting.reason if waiting else "",
            result.adapter.name if result and result.adapter else "",
            f"{job.gpu_hours:.2f}",
            age(job.created, now),
        ]
        rows.append([job.namespace, *row] if with_namespace else row)
    return table(["NAMESPACE", *header] if with_namespace else header, rows)


def job_text(job: Job, events: Iterable[Mapping[str, Any]], now: datetime) -> str:
    """What `describe` prints."""
    status, progress = job.status, job.status.progress
    lines = [f"{click.style(job.name, bold=True)} in {job.namespace}: {state_text(job)}"]
    lines += [f"  {status.message}"] if status.message else []
    if progress is not None and not job.has_ended:
        left = f", {progress.eta} left" if progress.eta else ""
        lines.append(f"  {bar(progress.percent)} {progress.text}, loss {_number(progress.loss)}{left}")
    model = job.spec.get("model") or {}
    lines.append("")
    lines.append(
        f"method    {job.spec.get('method')} on runtime {(job.spec.get('runtime') or {}).get('name')}"
    )
    lines.append(f"model     {_source(model)}")
    lines.append(f"data      {_source((job.spec.get('dataset') or {}).get('training') or {})}")
    if status.plan is not None:
        plan = status.plan
        lines.append(
            f"GPUs      {plan.gpus}; micro batch {plan.micro_batch_size} x {plan.gradient_accumulation} accumulation"
        )
    lines.append(
        f"asked by  {job.requested_by or '- (label tuneyard.io/requested-by)'}, {age(job.created, now)} ago"
    )
    if status.result is not None and status.result.adapter is not None:
        adapter = status.result.adapter
        lines.append(f"adapter   {adapter.name}, {adapter.digest}, {adapter.path}")
    if status.result is not None and status.result.endpoint:
        lines.append(f"served    as {status.result.model_name} at {status.result.endpoint}")
    if status.tracking:
        lines.append(f"tracked   at {status.tracking}")
    lines.append("")
    for condition in status.conditions:
        colour, mark = _MARKS[condition.status]
        lines.append(
            f"{click.style(mark, fg=colour)} {condition.type.value:<10} {condition.reason}: {condition.message}"
        )
    if status.attempts:
        lines += ["", *(_attempt(each) for each in status.attempts)]
    if status.ledger is not None:
        lines += ["", *ledger_lines(status.ledger)]
    said = [
        f"{age_of(event, now):>6}  {event.get('type')}  {event.get('reason')}: {event.get('message')}"
        for event in events
    ]
    lines += ["", *said] if said else []
    return "\n".join(lines) + "\n"


def ledger_lines(ledger: LedgerStatus) -> list[str]:
    """Where the time went: each part with its share."""
    parts = {part: count for part, count in ledger.seconds.by_part().items() if count}
    total = sum(parts.values())
    good = f", goodput {ledger.goodput_percent} %" if ledger.goodput_percent is not None else ""
    lines = [f"time      {length(total)}, {ledger.gpu_seconds / 3600:.2f} GPU hours{good}"]
    for part, count in parts.items():
        percent = round(100 * count / total)
        lines.append(f"  {part.value:<18} {length(count):>8}  {percent:>3} %  {bar(percent)}")
    return lines


def usage_text(usage: Usage) -> str:
    """What `top` prints."""
    rows = [
        [
            job.namespace,
            job.name,
            str(job.status.plan.gpus if job.status.plan else 0),
            *_speed(job),
            job.requested_by,
        ]
        for job in usage.training
    ]
    count, gpus = len(usage.training), usage.gpus
    jobs = "1 job trains" if count == 1 else f"{count} jobs train"
    text = f"{jobs} on {gpus} GPU{'' if gpus == 1 else 's'}, {usage.tokens_per_second:.0f} tokens/s\n"
    if rows:
        text += "\n" + table(["NAMESPACE", "NAME", "GPUS", "TOK/S", "PROGRESS", "ASKED BY"], rows)
    for what, hours in (("NAMESPACE", usage.by_namespace), ("ASKED BY", usage.by_requester)):
        text += "\n" + table([what, "GPU-H"], ([name, f"{used:.2f}"] for name, used in hours.items()))
    return text


def comparison_text(found: Comparison) -> str:
    """What `compare` prints."""
    rows = [[row.what, _cell(row.left), _cell(row.right), _change(row)] for row in found.measured]
    text = table(["MEASURED", found.left, found.right, "CHANGE"], rows)
    if not found.spec:
        return text + "\nThe specs are equal.\n"
    return (
        text
        + "\n"
        + table(
            ["SPEC", found.left, found.right], ([r.what, _cell(r.left), _cell(r.right)] for r in found.spec)
        )
    )


def bar(percent: int) -> str:
    """`██████░░░░`."""
    full = round(max(0, min(100, percent)) * _BAR / 100)
    return "█" * full + "░" * (_BAR - full)


def state_text(job: Job) -> str:
    """The state in its colour."""
    return click.style(job.status.state.value, fg=COLOURS.get(job.status.state))


def age(moment: datetime, now: datetime) -> str:
    """How long ago a moment is: `3d`, `5h`, `12m`, `40s`."""
    seconds = max(0, int((now - moment).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def age_of(event: Mapping[str, Any], now: datetime) -> str:
    """How long ago an Event was last seen."""
    text = event.get("lastTimestamp") or event.get("eventTime")
    return age(datetime.fromisoformat(text), now) if text else ""


def length(seconds: int) -> str:
    """`1d02h`, `2h05m`, `3m20s`, `45s`."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def _attempt(attempt: Any) -> str:
    until = attempt.ended or "now"
    why = f"  {attempt.failure_class}: {attempt.message}" if attempt.failure_class else ""
    return f"{attempt.job:<28} {attempt.started} to {until}  {attempt.outcome}{why}"


def _speed(job: Job) -> tuple[str, str]:
    progress = job.status.progress
    return (_number(progress.tokens_per_second), progress.text) if progress else ("", "")


def _source(source: Mapping[str, Any]) -> str:
    for kind, fields in source.items():
        if isinstance(fields, Mapping):
            return f"{kind}: " + ", ".join(
                str(value) for value in fields.values() if not isinstance(value, Mapping)
            )
    return "-"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _change(row: Difference) -> str:
    """The difference of the right value from the left one, in percent."""
    if not isinstance(row.left, int | float) or not isinstance(row.right, int | float) or not row.left:
        return ""
    return f"{100 * (row.right - row.left) / abs(row.left):+.1f} %"
