# SPDX-License-Identifier: Apache-2.0
"""Scheduled, Trained and Evaluated: the train stage has a GPU, follows its steps and compares base and tuned model."""

from tuneyard_api import reasons
from tuneyard_api.evaluation_facts import EvaluationFacts
from tuneyard_api.pod_contract import Stage, StageResult, TrainFacts, TrainingMeasures
from tuneyard_api.status import ConditionType

from tuneyard_operator.domain.conditions import api_time
from tuneyard_operator.domain.customizations import SeenCustomization
from tuneyard_operator.domain.observed import SeenPod
from tuneyard_operator.domain.progress import READ_EVERY, completed, measured, moved, of_steps, shown
from tuneyard_operator.domain.report import Report
from tuneyard_operator.domain.service_stage import CARRIER as CUSTOMIZER
from tuneyard_operator.domain.service_stage import is_by_service, progress_of
from tuneyard_operator.domain.serving import why_base_is_missing
from tuneyard_operator.domain.stages import PODS, Running, Work, carry
from tuneyard_operator.domain.steps.step import STARTING_AFTER, attempt_text, leave_unmet, look_again_after
from tuneyard_operator.domain.verdict import Verdict


def train(work: Work) -> float | None:
    """Scheduled, Trained and Evaluated: one Job, so that a GPU is not queued for twice."""
    report = work.report
    if report.is_met(ConditionType.EVALUATED):
        return None
    missing = why_base_is_missing(work.frozen.plan.destination, work.seen.listed)
    if missing is not None:
        return leave_unmet(work, ConditionType.SCHEDULED, missing)
    outcome = _carry(work)
    if isinstance(outcome, Verdict):
        pods = _train_pods(work)
        begun = bool(pods) and all(pod.scheduled for pod in pods)
        if begun and not report.is_met(ConditionType.SCHEDULED):
            report.met(ConditionType.SCHEDULED, reasons.SCHEDULED, _placed(pods))
        return leave_unmet(
            work, ConditionType.TRAINED if begun or outcome.final else ConditionType.SCHEDULED, outcome
        )
    if isinstance(outcome, Running):
        return _follow_service(work, outcome) if is_by_service(work) else _follow_training(work, outcome)
    if isinstance(outcome, SeenCustomization):
        _trained_by_service(report, outcome)
        return None
    facts = TrainFacts.model_validate(outcome.facts)
    report.met(ConditionType.SCHEDULED, reasons.SCHEDULED, "the training pod ran")
    report.met(
        ConditionType.TRAINED,
        reasons.TRAINED,
        f"{facts.steps} steps in {facts.seconds:.0f} s, loss {facts.final_loss:.4g}",
    )
    report.met(ConditionType.EVALUATED, reasons.EVALUATED, comparison_text(facts.evaluation))
    report.change(progress=completed(facts), training=measured(facts))
    report.change_result(metrics=facts.evaluation, steps=facts.steps, seconds=facts.seconds)
    return None


def _follow_service(work: Work, outcome: Running) -> float:
    """Report a customization that runs."""
    report, running = work.report, outcome.customization
    if running is None:
        doing = Verdict(reasons.WAITING_FOR_SERVICE, f"asks for the training ({attempt_text(outcome)})")
        return leave_unmet(work, ConditionType.SCHEDULED, doing, 0.0)
    if not report.is_met(ConditionType.SCHEDULED):
        report.met(ConditionType.SCHEDULED, reasons.SCHEDULED, f"customization {running.id} runs")
    leave_unmet(work, ConditionType.TRAINED, Verdict(reasons.TRAINING, f"trains ({attempt_text(outcome)})"))
    progress = progress_of(running)
    step = moved(report.status.progress, progress) if progress is not None else None
    if step is not None:
        report.change(progress=step, training=_measured_by_service(running))
    return READ_EVERY


def _trained_by_service(report: Report, ended: SeenCustomization) -> None:
    """Record what a customization has done."""
    loss = ended.best_loss if ended.best_loss is not None else ended.loss
    said = "" if loss is None else f", loss {loss:.4g}"
    report.met(ConditionType.SCHEDULED, reasons.SCHEDULED, f"customization {ended.id} ran")
    report.met(ConditionType.TRAINED, reasons.TRAINED, f"{ended.step} steps in {ended.seconds:.0f} s{said}")
    report.met(ConditionType.EVALUATED, reasons.EVALUATED, comparison_text(None))
    report.change(progress=of_steps(ended.step, loss), training=_measured_by_service(ended))
    report.change_result(steps=ended.step, seconds=ended.seconds)


def _measured_by_service(seen: SeenCustomization) -> TrainingMeasures:
    return shown(TrainingMeasures(validation_loss=seen.validation_loss))


def _carry(work: Work) -> StageResult | SeenCustomization | Running | Verdict:
    if is_by_service(work):
        return carry(work, Stage.TRAIN, CUSTOMIZER)
    return carry(work, Stage.TRAIN, PODS)


def comparison_text(facts: EvaluationFacts | None) -> str:
    """The comparison of tuned and base model, in one line."""
    if facts is None:
        return "the runtime does not evaluate"
    base, tuned, pairs = facts.base, facts.tuned, facts.preferences
    preferred = (
        f"chosen answers preferred {pairs.base_accuracy:.3f} -> {pairs.tuned_accuracy:.3f} on {pairs.pairs} pairs, "
        if pairs
        else ""
    )
    return preferred + (
        f"ROUGE-L {base.rouge_l:.3f} -> {tuned.rouge_l:.3f}, loss {base.loss:.3f} -> {tuned.loss:.3f} "
        f"on {tuned.prompts} held-out prompts"
    )


def _follow_training(work: Work, outcome: Running) -> float:
    """Report the training that nothing blocks: whether its pods are scheduled, and its progress."""
    pods, report = outcome.pods, work.report
    running = bool(pods) and all(pod.running or pod.is_over for pod in pods)
    placed = bool(pods) and all(pod.scheduled for pod in pods)
    if not running and not (
        placed and all(work.now - (pod.scheduled or work.now) >= STARTING_AFTER for pod in pods)
    ):
        if not report.is_met(ConditionType.SCHEDULED) or not pods:
            waits = Verdict(
                reasons.WAITING_FOR_POD, f"waits for the training pod to be placed ({attempt_text(outcome)})"
            )
            return leave_unmet(work, ConditionType.SCHEDULED, waits, look_again_after(work, outcome))
        return look_again_after(work, outcome)
    if not report.is_met(ConditionType.SCHEDULED):
        report.met(ConditionType.SCHEDULED, reasons.SCHEDULED, _placed(pods))
    doing = Verdict(reasons.TRAINING, f"trains ({attempt_text(outcome)})")
    if not running:
        doing = Verdict(reasons.STARTING, f"the training pod starts ({attempt_text(outcome)})")
    elif outcome.attempt.running_since is None:
        report.note(outcome.attempt, running_since=api_time(work.now))
    leave_unmet(work, ConditionType.TRAINED, doing)
    if work.seen.progress is not None and work.seen.progress.stage is Stage.TRAIN:
        report.change(tracking=work.seen.progress.tracking or report.status.tracking)
        step = moved(report.status.progress, work.seen.progress)
        if step is not None:
            measures = work.seen.progress.training
            report.change(progress=step, training=shown(measures) if measures else report.status.training)
    return READ_EVERY if running else look_again_after(work, outcome)


def _train_pods(work: Work) -> tuple[SeenPod, ...]:
    attempt = work.report.latest_attempt(Stage.TRAIN)
    return work.seen.pods_of(Stage.TRAIN, attempt.number) if attempt is not None else ()


def _placed(pods: tuple[SeenPod, ...]) -> str:
    return f"on {', '.join(sorted({pod.node or 'a node' for pod in pods}))}"
