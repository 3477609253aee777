# SPDX-License-Identifier: Apache-2.0
"""What `tuneyard plan` shows: one screen for a person who decides, or the same as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuneyard_api.forecast.gpus import Gpu
from tuneyard_api.forecast.memory import GIB
from tuneyard_api.forecast.of_job import Data, Forecast
from tuneyard_api.model_shape import ModelShape

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_LARGE_GIB = 10
_CHANGES = 3
"""Changes that are shown of a job that does not fit."""


@dataclass(frozen=True)
class Price:
    """What an hour of one GPU costs."""

    amount: float
    currency: str

    def of(self, gpu_hours: float | None) -> str:
        """The cost in words; nothing where the hours are not known."""
        return "" if gpu_hours is None else f"{gpu_hours * self.amount:,.2f} {self.currency}"


@dataclass(frozen=True)
class Planned:
    """A job on one kind of GPU."""

    forecast: Forecast
    price: Price | None


@dataclass(frozen=True)
class JobPlan:
    """All that is shown."""

    job: str
    model: str
    shape: ModelShape
    source: str
    """Where the shape was read, in words."""
    method: str
    runtime: str
    data: Data | None
    on: tuple[Planned, ...]
    """The product that the job asks for, or those that it may get."""
    is_asked: bool
    """Whether the job, or its runtime, names the product."""
    is_on_cpu: bool = False
    """Whether the training runs on CPU: then the memory is the limit of its pod, and refuses nothing."""
    budget_gpu_hours: float | None = None

    @property
    def best(self) -> Planned:
        """What is shown in detail: the product asked for, else the cheapest on which it fits, else the largest."""
        if self.is_asked:
            return self.on[0]
        fitting = [each for each in self.on if each.forecast.fits]
        if not fitting:
            return max(self.on, key=lambda each: each.forecast.gpu.memory_gib or 0.0)
        return min(fitting, key=_cost)

    @property
    def fits(self) -> bool:
        """Whether the job can run as it is written."""
        return self.is_on_cpu or self.best.forecast.fits


def _cost(planned: Planned) -> float:
    hours = (planned.forecast.step_seconds or 0.0) * planned.forecast.work.processes
    return hours * planned.price.amount if planned.price else hours


def text_of(plan: JobPlan) -> str:
    """One screen."""
    best = plan.best.forecast
    lines = [
        f"{plan.job}: {plan.method} of {plan.model}, {_large(plan.shape.parameters)} parameters",
        f"  shape from {plan.source}",
        f"  {_place(plan)}, runtime {plan.runtime}",
        "",
        f"memory of {'the training pod' if plan.is_on_cpu else 'each GPU':<21}GiB",
        *_memory_lines(plan),
        "",
        *_verdict_lines(plan),
        *_batch_lines(best),
        *(_time_lines(plan) if plan.fits else ()),
    ]
    if len(plan.on) > 1:
        lines += ["", *_table(plan)]
    return "\n".join(lines) + "\n"


def _place(plan: JobPlan) -> str:
    best = plan.best.forecast
    if plan.is_on_cpu:
        return "on CPU"
    gpu = f"{best.work.processes} x {best.gpu.product}"
    known = "memory not known" if best.gpu.memory_gib is None else f"{best.gpu.memory_gib:g} GiB"
    return f"{gpu} ({known}{'' if plan.is_asked else '; the job names no GPU product'})"


def _memory_lines(plan: JobPlan) -> list[str]:
    forecast = plan.best.forecast
    work, parts = forecast.work, forecast.memory.parts()
    kind = work.quantization or ("bf16" if work.is_bf16 else "fp32")
    names = {
        "weights": f"weights, {kind}",
        "trained": f"trained, {_large(work.trained_parameters)}",
        "activations": "activations" + (", checkpointed" if work.is_recomputing else ""),
        "framework": "Python and PyTorch" if plan.is_on_cpu else "CUDA",
    }
    sizes = {names.get(part, part): size / GIB for part, size in parts.items() if size}
    sizes["total"] = forecast.memory.total / GIB
    # A small model is a matter of tenths.
    digits = 1 if sizes["total"] >= _LARGE_GIB else 2
    return [f"  {part:<26}{size:6.{digits}f}" for part, size in sizes.items()]


def _verdict_lines(plan: JobPlan) -> list[str]:
    forecast = plan.best.forecast
    memory = forecast.gpu.memory_gib
    if memory is None:
        return [
            f"fits?  the memory of {forecast.gpu.product} is not known, so nothing is refused because of it"
        ]
    left = memory - forecast.memory.total / GIB
    if left >= 0:
        return [f"fits   {left:.1f} of {memory:g} GiB stay free"]
    if plan.is_on_cpu:
        return [f"memory {-left:.1f} GiB above the pod's limit of {memory:g} GiB; try resources.memoryGiB"]
    lines = [f"does not fit   {-left:.1f} GiB are missing; it would fit with"]
    lines += [
        f"  {change.words:<64} {change.memory.total / GIB:6.1f} of {change.gpu.memory_gib:g} GiB"
        for change in forecast.changes[:_CHANGES]
    ]
    return lines if forecast.changes else ["does not fit   nothing that Tuneyard knows makes it fit"]


def _batch_lines(forecast: Forecast) -> list[str]:
    work = forecast.work
    path = "the fast path" if work.why_plain is None else f"the plain path: {work.why_plain}"
    batch = work.micro_batch * work.processes * work.accumulation
    said = (
        f"batch  {batch} = micro batch {work.micro_batch} x {work.processes} data parallel x {work.accumulation}"
        f" accumulation, sequences of {work.sequence} tokens"
    )
    return [
        said,
        f"       gradient checkpointing {'on' if work.is_recomputing else 'off'}; {path}",
    ]


def _time_lines(plan: JobPlan) -> list[str]:
    planned = plan.best
    best = planned.forecast
    steps = "how many steps is not known: try --sequences N, or --claim NAME=FOLDER with the data"
    if best.step_seconds is None:
        counted = steps if best.steps is None else f"{best.steps} steps"
        who = "a CPU" if plan.is_on_cpu else best.gpu.product
        return [f"time   {counted}; how fast {who} is was not measured: status.progress has the time left"]
    if best.seconds is None or best.gpu_hours is None:
        return [f"time   {best.step_seconds:.3g} s a step; {steps}"]
    says = "" if best.is_time_measured else "; by its data sheet, as this GPU was not measured"
    lines = [
        f"time   {duration(best.seconds)}: {best.steps} steps of {best.step_seconds:.3g} s{says}",
        "       without queue, downloads, loading, evaluation and checkpoints",
    ]
    cost = f", {planned.price.of(best.gpu_hours)}" if planned.price else ""
    lines.append(f"cost   {best.gpu_hours:.3g} GPU hours{cost}")
    if plan.budget_gpu_hours is not None:
        enough = "within" if best.gpu_hours <= plan.budget_gpu_hours else "above"
        lines.append(f"       {enough} spec.budget.gpuHours {plan.budget_gpu_hours:g}")
    return lines


def _table(plan: JobPlan) -> list[str]:
    rows = [("GPU product", "GiB", "needed", "micro", "checkpointing", "time", "GPU hours", "cost")]
    for planned in plan.on:
        each = planned.forecast
        memory = "?" if each.gpu.memory_gib is None else f"{each.gpu.memory_gib:g}"
        needed = f"{each.memory.total / GIB:.1f}"
        if not each.fits:
            rows.append((each.gpu.product, memory, needed, "-", "-", "does not fit", "", ""))
            continue
        step = f"{each.step_seconds:.3g} s a step" if each.step_seconds else "?"
        rows.append(
            (
                each.gpu.product,
                memory,
                needed,
                str(each.work.micro_batch),
                "on" if each.work.is_recomputing else "off",
                duration(each.seconds) if each.seconds is not None else step,
                f"{each.gpu_hours:.3g}" if each.gpu_hours is not None else "",
                planned.price.of(each.gpu_hours) if planned.price else "",
            )
        )
    return _columns(rows)


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def duration(seconds: float) -> str:
    """Such as `2 h 5 min`, of two parts at most."""
    whole = round(seconds)
    parts = (
        (whole // _DAY, "d"),
        (whole % _DAY // _HOUR, "h"),
        (whole % _HOUR // _MINUTE, "min"),
        (whole % _MINUTE, "s"),
    )
    first = next((at for at, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number) or "0 s"


def _large(number: float) -> str:
    return f"{number / 1e9:.2f} billion" if number >= 1e9 else f"{number / 1e6:.1f} million"  # noqa: PLR2004


def json_of(plan: JobPlan) -> dict[str, Any]:
    """Everything as data: sizes in GiB, times in seconds."""
    return {
        "job": plan.job,
        "model": {
            "name": plan.model,
            "parameters": plan.shape.parameters,
            "shapeFrom": plan.source,
        },
        "method": plan.method,
        "runtime": plan.runtime,
        "sequences": plan.data.sequences if plan.data else None,
        "fits": plan.fits,
        "gpuProductIsAsked": plan.is_asked,
        "budgetGpuHours": plan.budget_gpu_hours,
        "plans": [_json_of(planned) for planned in plan.on],
    }


def _json_of(planned: Planned) -> dict[str, Any]:
    each, price = planned.forecast, planned.price
    work = each.work
    return {
        "gpu": _gpu_json(each.gpu),
        "gpus": work.processes,
        "fits": each.fits,
        "memoryGiB": {name: round(size / GIB, 2) for name, size in each.memory.parts().items()}
        | {"total": round(each.memory.total / GIB, 2)},
        "microBatchSize": work.micro_batch,
        "gradientAccumulation": work.accumulation,
        "gradientCheckpointing": work.is_recomputing,
        "sequenceLength": work.sequence,
        "path": "fast" if work.why_plain is None else "plain",
        "pathReason": work.why_plain,
        "steps": each.steps,
        "stepSeconds": None if each.step_seconds is None else round(each.step_seconds, 4),
        "seconds": None if each.seconds is None else round(each.seconds),
        "gpuHours": None if each.gpu_hours is None else round(each.gpu_hours, 3),
        "cost": None
        if price is None or each.gpu_hours is None
        else {"amount": round(each.gpu_hours * price.amount, 2), "currency": price.currency},
        "isTimeMeasured": each.is_time_measured,
        "changes": [
            {
                "kind": change.kind,
                "change": change.words,
                "totalGiB": round(change.memory.total / GIB, 2),
                "gpuProduct": change.gpu.product,
            }
            for change in each.changes
        ],
    }


def _gpu_json(gpu: Gpu) -> dict[str, Any]:
    return {"product": gpu.product, "memoryGiB": gpu.memory_gib}
