# SPDX-License-Identifier: Apache-2.0
"""Planned: the plan that the job starts with is stored, and the workspace exists."""

from tuneyard_api import reasons
from tuneyard_api.status import ConditionType, PlanStatus

from tuneyard_operator.domain.decision import Create
from tuneyard_operator.domain.objects.storage import build_gpu_claim_template, build_plan_map, build_workspace
from tuneyard_operator.domain.stages import Work
from tuneyard_operator.domain.steps.step import leave_unmet
from tuneyard_operator.domain.waiting import why_former_life


def plan(work: Work) -> float | None:
    """Planned: the plan is stored and the workspace exists."""
    plan, is_planned = work.frozen.plan, work.report.is_met(ConditionType.PLANNED)
    former = None if is_planned else why_former_life(work.seen)
    if former is not None:
        return leave_unmet(work, ConditionType.PLANNED, former)
    if not work.seen.has_plan_map:
        body = build_plan_map(work.owner, work.frozen)
        work.actions.append(Create(ConditionType.PLANNED, body, frozen=work.frozen))
    if is_planned:
        return None
    work.actions.append(Create(ConditionType.PLANNED, build_workspace(work.owner, work.frozen)))
    if work.frozen.runtime.device_class_name is not None:
        work.actions.append(Create(ConditionType.PLANNED, build_gpu_claim_template(work.owner, work.frozen)))
    training, processes = plan.resolved.training, plan.resolved.nodes * plan.resolved.gpus_per_node
    numbers = shares_text(work, training.micro_batch_size, training.gradient_accumulation)
    service = work.frozen.runtime.customizer
    work.report.met(ConditionType.PLANNED, reasons.PLANNED, numbers)
    work.report.change(
        plan=PlanStatus(
            digest=plan.digest,
            gpus=processes if work.frozen.runtime.asks_for_gpus else 0,
            micro_batch_size=training.micro_batch_size,
            gradient_accumulation=training.gradient_accumulation,
            registry_claim=plan.registry_claim,
            customizer=service.endpoint if service is not None else None,
            adapter_path=plan.adapter_path,
        )
    )
    return None


def shares_text(work: Work, micro_batch: int, accumulation: int) -> str:
    """How the global batch is shared out, in one line."""
    plan = work.frozen.plan
    training, processes = plan.resolved.training, plan.resolved.nodes * plan.resolved.gpus_per_node
    one, many = ("process", "processes") if work.frozen.runtime.accelerator == "none" else ("GPU", "GPUs")
    nodes = plan.resolved.nodes
    spread = (
        f" on {nodes} nodes, which share {plan.workspace_size_gib} GiB ReadWriteMany" if nodes > 1 else ""
    )
    return (
        f"{processes} {one if processes == 1 else many}{spread}; global batch {training.global_batch_size} ="
        f" {micro_batch} x {training.data_parallel} data parallel x {accumulation} accumulation"
    )
