# SPDX-License-Identifier: Apache-2.0
"""From what is seen to what is done: the steps of a job in order, each met, not met yet, or never to be met.

Reading STEPS is reading the life of a job. A pass walks them until one is not done; what is done already is in
status with its facts and is never looked at again, so a restart repeats nothing, whatever has been deleted since.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import EvaluationFacts, PrepareFacts, PublishFacts, Stage, TrainFacts
from tuneyard_api.status import AdapterStatus, ConditionType, FineTuneJobStatus, PlanStatus, WaitingFor

from tuneyard_operator.domain.acceptance import accept
from tuneyard_operator.domain.build.storage import build_gpu_claim_template, build_plan_map, build_workspace
from tuneyard_operator.domain.cleanup import clean_up
from tuneyard_operator.domain.conditions import api_time, is_true, read_time
from tuneyard_operator.domain.conduct import read_conduct
from tuneyard_operator.domain.deadlines import why_late
from tuneyard_operator.domain.decision import Create, Decision, Refusal, SetFinalizers
from tuneyard_operator.domain.frozen import Frozen
from tuneyard_operator.domain.interventions import end_late, hold_or_release
from tuneyard_operator.domain.observed import Observed, SeenPod
from tuneyard_operator.domain.parting import finalizers_to_set, part, part_refused
from tuneyard_operator.domain.progress import READ_EVERY, completed, moved
from tuneyard_operator.domain.quotas import is_exceeded, quota_named_in
from tuneyard_operator.domain.report import Report
from tuneyard_operator.domain.serving import POLL_EVERY, Serving, why_base_is_missing, why_not_served
from tuneyard_operator.domain.stages import HELD, Running, Work, carry
from tuneyard_operator.domain.state import is_terminal
from tuneyard_operator.domain.verdict import Verdict
from tuneyard_operator.domain.waiting import EVENTS_AFTER, PATIENCE, why_former_life

RECHECK_SECONDS = 10.0
"""How often something outside our watches (a claim, a quota) is looked for again."""
QUIET_SECONDS = 60.0
"""How often a job is looked at of which nothing is heard."""
STARTING_AFTER = timedelta(seconds=5)
"""From when on a scheduled pod that does not run yet is worth a status of its own."""


def decide(seen: Observed, now: datetime) -> Decision:
    """What this pass does. A terminal job is only cleaned up; applying a decision and deciding again changes nothing."""
    if seen.parting is not None:
        return part(seen, now)
    finalizers = finalizers_to_set(seen.spec, seen.status, seen.finalizers)
    if finalizers is not None:
        return Decision((SetFinalizers(finalizers),), seen.status, 0.0)
    if is_terminal(seen.status.conditions):
        return clean_up(seen, now)
    return _carry_on(seen, now)


def _carry_on(seen: Observed, now: datetime) -> Decision:
    """Of a job that is on its way: accept it, then walk the steps."""
    report, conduct = Report(seen.status, seen.generation, now), read_conduct(seen.spec)
    has_begun = seen.status.plan is not None or any(job.owner_uid == seen.uid for job in seen.jobs)
    if conduct.suspend and not has_begun:
        report.hold(HELD.message)
        return Decision((), report.finish(), None, tuple(report.notes))
    if not conduct.suspend:
        report.release(reasons.RESUMED, "spec.suspend is false again")
    late = None if conduct.suspend else why_late(seen, conduct.deadlines, now)
    frozen = _begin(seen, report)
    if isinstance(frozen, Verdict):
        return _not_begun(report, frozen, late)
    work = Work(seen, report, frozen, conduct, now)
    if isinstance(late, Verdict) and end_late(work, late):
        return Decision(tuple(work.actions), report.finish(), None, tuple(report.notes))
    requeue: float | None = None
    for step in STEPS:
        stop = step(work)
        if stop is not None:
            requeue = stop
            break
    else:
        report.succeed(_summary(report.status))
    if is_terminal(report.status.conditions):
        requeue = None
    elif isinstance(late, float) and requeue is not None:
        requeue = min(requeue, late)
    if conduct.suspend and requeue is not None:
        requeue = hold_or_release(report, requeue)
    return Decision(tuple(work.actions), report.finish(), requeue, tuple(report.notes))


def _not_begun(report: Report, verdict: Verdict, late: Verdict | float | None) -> Decision:
    """Not accepted (yet), or too late for that."""
    if isinstance(late, Verdict) and not verdict.final:
        report.miss(ConditionType.ACCEPTED, late)
        verdict = late
    requeue = None if verdict.final else min([RECHECK_SECONDS, *([late] if isinstance(late, float) else [])])
    return Decision((), report.finish(), requeue, tuple(report.notes))


def refuse(seen: Observed, decision: Decision, refusal: Refusal, now: datetime) -> Decision:
    """The decision that is reported instead when the API server would not create one of its objects.

    What was found out before the refused object is kept; attempts that have not been made are not.
    """
    if seen.parting is not None:
        return part_refused(seen, refusal)
    action = refusal.action
    after = decision.actions[decision.actions.index(action) :]
    unmade = {each.attempt for each in after if isinstance(each, Create)}
    report = Report(seen.status, seen.generation, now)
    conditions = tuple(
        condition
        for condition in decision.status.conditions
        if _place(condition.type) < _place(action.step)
        or condition.type is ConditionType.SUSPENDED
        or condition in seen.status.conditions
    )
    attempts = tuple(
        attempt
        for attempt in decision.status.attempts
        if (attempt.stage, attempt.number) not in unmade or attempt in seen.status.attempts
    )
    kept: dict[str, object] = {"conditions": conditions, "attempts": attempts}
    if action.step is ConditionType.PLANNED:
        kept["plan"] = seen.status.plan
    report.status = decision.status.model_copy(update=kept)
    reason = {
        "Conflict": reasons.NAME_CONFLICT,
        "Forbidden": reasons.QUOTA_EXCEEDED if is_exceeded(refusal.message) else reasons.NOT_ALLOWED,
        "NamespaceTerminating": reasons.NOT_ALLOWED,
        "Invalid": reasons.OBJECT_INVALID,
    }[refusal.cause]
    message = f"{action.kind} {action.name}: {refusal.message}"
    final = refusal.cause == "Invalid"
    quota = quota_named_in(refusal.message)
    kind, name = (action.kind, action.name) if quota is None else ("ResourceQuota", quota)
    waiting = None if final else WaitingFor(kind=kind, name=name, reason=reason, message=message[:2048])
    report.miss(action.step, Verdict(reason, message, final=final, waiting_for=waiting))
    return Decision((), report.finish(), None if final else RECHECK_SECONDS, tuple(report.notes))


def needs_claims(seen: Observed) -> bool:
    """Whether the claims of the namespace must be known to decide."""
    return seen.frozen is None and not is_true(seen.status.conditions, ConditionType.ACCEPTED)


def _begin(seen: Observed, report: Report) -> Frozen | Verdict:
    """Accepted: what the job was started with, or is to be started with."""
    frozen = seen.frozen or accept(seen)
    started = seen.status.plan
    if isinstance(frozen, Frozen) and started is not None and frozen.plan.digest != started.digest:
        gone = "the ConfigMap of the plan was deleted, and job or runtime have changed since the start"
        frozen = Verdict(reasons.PLAN_LOST, gone, final=True)
    if isinstance(frozen, Verdict):
        report.miss(ConditionType.ACCEPTED if started is None else ConditionType.PLANNED, frozen)
        return frozen
    if not report.is_met(ConditionType.ACCEPTED):
        method, runtime = frozen.plan.resolved.method, frozen.plan.resolved.runtime.name
        report.meet(ConditionType.ACCEPTED, reasons.ACCEPTED, f"{method} on runtime {runtime}")
        report.change(started=api_time(report.now), waiting_for=None)
    return frozen


def _plan(work: Work) -> float | None:
    """Planned: the plan is written down and there is room to work in."""
    plan, is_planned = work.frozen.plan, work.report.is_met(ConditionType.PLANNED)
    former = None if is_planned else why_former_life(work.seen)
    if former is not None:
        return _stop(work, ConditionType.PLANNED, former)
    if not work.seen.has_plan_map:
        body = build_plan_map(work.owner, work.frozen)
        work.actions.append(Create(ConditionType.PLANNED, body, frozen=work.frozen))
    if is_planned:
        return None
    work.actions.append(Create(ConditionType.PLANNED, build_workspace(work.owner, work.frozen)))
    if work.frozen.runtime.device_class_name is not None:
        work.actions.append(Create(ConditionType.PLANNED, build_gpu_claim_template(work.owner, work.frozen)))
    training, processes = plan.resolved.training, plan.resolved.nodes * plan.resolved.gpus_per_node
    one, many = ("process", "processes") if work.frozen.runtime.accelerator == "none" else ("GPU", "GPUs")
    nodes = plan.resolved.nodes
    spread = (
        f" on {nodes} nodes, which share {plan.workspace_size_gib} GiB ReadWriteMany" if nodes > 1 else ""
    )
    numbers = (
        f"{processes} {one if processes == 1 else many}{spread}; global batch {training.global_batch_size} = {training.micro_batch_size} x "
        f"{training.data_parallel} data parallel x {training.gradient_accumulation} accumulation"
    )
    work.report.meet(ConditionType.PLANNED, reasons.PLANNED, numbers)
    work.report.change(
        plan=PlanStatus(
            digest=plan.digest,
            gpus=processes if work.frozen.runtime.asks_for_gpus else 0,
            micro_batch_size=training.micro_batch_size,
            gradient_accumulation=training.gradient_accumulation,
            registry_claim=plan.registry.claim_name,
            adapter_path=f"{plan.resolved.registry_path}/{plan.resolved.adapter_name}",
        )
    )
    return None


def _prepare(work: Work) -> float | None:
    """DataReady: model and data are there, checked, tokenised."""
    report = work.report
    if report.is_met(ConditionType.DATA_READY):
        return None
    stand = carry(work, Stage.PREPARE)
    if isinstance(stand, Verdict):
        return _stop(work, ConditionType.DATA_READY, stand)
    if isinstance(stand, Running):
        doing = Verdict(reasons.PREPARING, f"prepares model and data ({_which(stand)})")
        return _stop(work, ConditionType.DATA_READY, doing, _soon(work, stand))
    facts = PrepareFacts.model_validate(stand.facts)
    counts = (
        (facts.truncated_records, "truncated"),
        (facts.duplicate_records, "duplicates"),
        (facts.leaked_records, "leaked"),
        (facts.personal_data_hints, "hints at personal data"),
    )
    found = "".join(f", {count} {what}" for count, what in counts if count)
    report.meet(
        ConditionType.DATA_READY,
        reasons.PREPARED,
        f"{facts.train_records} records in {facts.train_sequences} sequences, {facts.train_tokens} tokens{found}",
    )
    report.change_result(dataset_digest=facts.dataset_digest, model_revision=facts.model_revision)
    return None


def _train(work: Work) -> float | None:
    """Scheduled, Trained and Evaluated: one Job, so that a GPU is not queued for twice."""
    report = work.report
    if report.is_met(ConditionType.EVALUATED):
        return None
    missing = why_base_is_missing(work.frozen.plan.destination, work.seen.listed)
    if missing is not None:
        return _stop(work, ConditionType.SCHEDULED, missing)
    stand = carry(work, Stage.TRAIN)
    if isinstance(stand, Verdict):
        pods = _train_pods(work)
        begun = bool(pods) and all(pod.scheduled for pod in pods)
        if begun and not report.is_met(ConditionType.SCHEDULED):
            report.meet(ConditionType.SCHEDULED, reasons.SCHEDULED, _placed(pods))
        return _stop(work, ConditionType.TRAINED if begun or stand.final else ConditionType.SCHEDULED, stand)
    if isinstance(stand, Running):
        return _follow_training(work, stand)
    facts = TrainFacts.model_validate(stand.facts)
    report.meet(ConditionType.SCHEDULED, reasons.SCHEDULED, "the training pod ran")
    report.meet(
        ConditionType.TRAINED,
        reasons.TRAINED,
        f"{facts.steps} steps in {facts.seconds:.0f} s, loss {facts.final_loss:.4g}",
    )
    report.meet(ConditionType.EVALUATED, reasons.EVALUATED, _comparison(facts.evaluation))
    report.change(progress=completed(facts))
    report.change_result(metrics=facts.evaluation, steps=facts.steps, seconds=facts.seconds)
    return None


def _follow_training(work: Work, stand: Running) -> float:
    """While nothing is in the way: placed or not, and how far."""
    pods, report = stand.pods, work.report
    running = bool(pods) and all(pod.running or pod.is_over for pod in pods)
    placed = bool(pods) and all(pod.scheduled for pod in pods)
    if not running and not (
        placed and all(work.now - (pod.scheduled or work.now) >= STARTING_AFTER for pod in pods)
    ):
        if not report.is_met(ConditionType.SCHEDULED) or not pods:
            waits = Verdict(
                reasons.WAITING_FOR_POD, f"waits for the training pod to be placed ({_which(stand)})"
            )
            return _stop(work, ConditionType.SCHEDULED, waits, _soon(work, stand))
        return _soon(work, stand)
    if not report.is_met(ConditionType.SCHEDULED):
        report.meet(ConditionType.SCHEDULED, reasons.SCHEDULED, _placed(pods))
    doing = Verdict(reasons.TRAINING, f"trains ({_which(stand)})")
    if not running:
        doing = Verdict(reasons.STARTING, f"the training pod starts ({_which(stand)})")
    elif stand.attempt.running_since is None:
        report.note(stand.attempt, running_since=api_time(work.now))
    _stop(work, ConditionType.TRAINED, doing)
    if work.seen.progress is not None and work.seen.progress.stage is Stage.TRAIN:
        step = moved(report.status.progress, work.seen.progress)
        report.change(progress=step or report.status.progress)
    return READ_EVERY if running else _soon(work, stand)


def _publish(work: Work) -> float | None:
    """Published: the adapter is in the registry, under its name and digest."""
    report = work.report
    if report.is_met(ConditionType.PUBLISHED):
        return None
    if work.conduct.deletion_policy == "Delete" and names.FINALIZER not in work.seen.finalizers:
        # Set by the next pass: only then is what a pod may publish sure to be removed with the job.
        return _stop(work, ConditionType.PUBLISHED, Verdict(reasons.PUBLISHING, "is about to publish"), 0.0)
    stand = carry(work, Stage.PUBLISH)
    if isinstance(stand, Verdict):
        return _stop(work, ConditionType.PUBLISHED, stand)
    if isinstance(stand, Running):
        doing = Verdict(reasons.PUBLISHING, f"publishes the adapter ({_which(stand)})")
        return _stop(work, ConditionType.PUBLISHED, doing, _soon(work, stand))
    facts = PublishFacts.model_validate(stand.facts)
    report.meet(
        ConditionType.PUBLISHED, reasons.PUBLISHED, f"{facts.path}, {facts.size_bytes} bytes, {facts.digest}"
    )
    destination = work.frozen.plan.destination
    served_at = destination.endpoint if destination is not None else None
    adapter = AdapterStatus(name=facts.adapter_name, digest=facts.digest, path=facts.path)
    report.change_result(adapter=adapter, model_name=facts.adapter_name, endpoint=served_at)
    return None


def _serve(work: Work) -> float | None:
    """Served: every ready replica of the server has answered with the adapter."""
    destination, report = work.frozen.plan.destination, work.report
    if destination is None or report.is_met(ConditionType.SERVED):
        return None
    if work.conduct.suspend:
        return _stop(work, ConditionType.SERVED, HELD)
    moments = [
        read_time(condition.last_transition_time)
        for condition in report.status.conditions
        if condition.type in {ConditionType.PUBLISHED, ConditionType.SUSPENDED}
    ]
    since = max(moments, default=work.now)
    serving = Serving(
        endpoint=destination.endpoint,
        adapter=work.frozen.plan.resolved.adapter_name,
        answers=work.seen.served,
        waited=work.now - since,
        timeout=timedelta(seconds=work.frozen.plan.serve_timeout_seconds),
    )
    verdict = why_not_served(serving)
    if verdict is not None:
        # The first question is asked at once: the pass that published could not ask it.
        return _stop(work, ConditionType.SERVED, verdict, 0.0 if serving.answers is None else POLL_EVERY)
    replicas = len(serving.answers or ())
    by = f"{replicas} replicas of " if replicas > 1 else ""
    report.meet(
        ConditionType.SERVED,
        reasons.SERVED,
        f"{by}{destination.endpoint} {'answer' if by else 'answers'} with {serving.adapter}",
    )
    report.change_result(served_after_seconds=round(serving.waited.total_seconds(), 1))
    return None


STEPS: tuple[Callable[[Work], float | None], ...] = (_plan, _prepare, _train, _publish, _serve)
"""After acceptance, in order. A step that is done returns None; else the seconds after which to look again."""


def _stop(work: Work, step: ConditionType, verdict: Verdict, requeue: float = RECHECK_SECONDS) -> float:
    work.report.miss(step, verdict)
    return requeue if verdict.again_after is None else verdict.again_after


def _which(stand: Running) -> str:
    """`attempt 2, micro batch 1`."""
    micro = stand.attempt.micro_batch_size
    return f"attempt {stand.attempt.number}" + (f", micro batch {micro}" if micro else "")


def _soon(work: Work, stand: Running) -> float:
    """When a stage that starts must be looked at again to notice that it does not."""
    if not stand.pods:
        return EVENTS_AFTER.total_seconds() + 1
    if all(pod.running or pod.is_over for pod in stand.pods):
        return QUIET_SECONDS
    youngest = max(pod.created for pod in stand.pods)
    for threshold in (PATIENCE, STARTING_AFTER):
        left = (youngest + threshold - work.now).total_seconds()
        if left >= 0:
            return left + 0.5
    return EVENTS_AFTER.total_seconds()


def _train_pods(work: Work) -> tuple[SeenPod, ...]:
    attempt = work.report.latest_attempt(Stage.TRAIN)
    return work.seen.pods_of(Stage.TRAIN, attempt.number) if attempt is not None else ()


def _placed(pods: tuple[SeenPod, ...]) -> str:
    return f"on {', '.join(sorted({pod.node or 'a node' for pod in pods}))}"


def _comparison(facts: EvaluationFacts | None) -> str:
    if facts is None:
        return "the runtime does not evaluate"
    base, tuned = facts.base, facts.tuned
    return (
        f"ROUGE-L {base.rouge_l:.3f} -> {tuned.rouge_l:.3f}, loss {base.loss:.3f} -> {tuned.loss:.3f} "
        f"on {tuned.prompts} held-out prompts"
    )


def _summary(status: FineTuneJobStatus) -> str:
    result = status.result
    name = result.adapter.name if result and result.adapter else "the adapter"
    where = f" and served at {result.endpoint}" if result and result.endpoint else ""
    gain = f"; {_comparison(result.metrics)}" if result and result.metrics else ""
    return f"adapter {name} is published{where}{gain}"


def _place(step: ConditionType) -> int:
    return list(ConditionType).index(step)
