# SPDX-License-Identifier: Apache-2.0
"""What a job can't ask of NeMo Customizer: no setting is dropped silently, and each refusal names runtimes that can."""

from collections.abc import Iterable, Iterator
from typing import Any

from tuneyard_api.job import Checkpoint, Evaluation, FineTuneJob, Lora, Resources, Scheduling, Training
from tuneyard_api.refusals import Problem
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.serving import base_words

WAYS = {"lora": ("sft", "lora"), "sft": ("sft", "all_weights"), "dpo": ("dpo", "lora")}
"""training_type and finetuning_type of each method."""


def customizer_problems(
    job: FineTuneJob, runtime: FineTuneRuntime, others: Iterable[FineTuneRuntime]
) -> tuple[Problem, ...]:
    """Every reason why a service can't carry `job`; empty also for a runtime that trains in pods."""
    service = runtime.spec.customizer
    if service is None:
        return ()
    able = sorted(
        each.metadata.name
        for each in others
        if each.spec.customizer is None and job.spec.method in each.spec.methods
    )
    elsewhere = (
        f"runtime {' or '.join(able)}, which trains in pods" if able else "a runtime that trains in pods"
    )
    name, problems = runtime.metadata.name, []
    base = service.model_of(job.spec.model)
    if base is None:
        has = ", ".join(str(each.base) for each in service.models)
        message = (
            f"runtime {name} trains {has} (got {base_words(job.spec.model)}); try one of them, or {elsewhere}"
        )
        problems.append(Problem("spec.model", message))
    for path, got, advice in _asked_in_vain(job):
        message = f"runtime {name} trains by NeMo Customizer, which has no such setting (got {got})"
        problems.append(Problem(f"spec.{path}", f"{message}; try {advice}, or {elsewhere}"))
    return tuple(problems)


def _asked_in_vain(job: FineTuneJob) -> Iterator[tuple[str, Any, str]]:
    """Path, value and advice for each setting of the job that the service has no field for."""
    spec, training = job.spec, job.spec.training
    lora, adapter, registry = spec.lora or Lora(), spec.model.adapter, spec.publish.any_registry
    clips = training.max_grad_norm != Training().max_grad_norm and spec.method != "dpo"
    table = (
        (spec.method not in WAYS, "method", spec.method, " or ".join(sorted(WAYS))),
        (lora.dora, "lora.dora", "true", "false"),
        (lora.rank & (lora.rank - 1), "lora.rank", lora.rank, "a power of 2"),
        (lora.target_modules, "lora.targetModules", ", ".join(lora.target_modules or ()), "leaving it out"),
        (adapter, "model.adapter", adapter and (adapter.published or adapter.pvc), "leaving it out"),
        (spec.dataset.loss_on == "all", "dataset.lossOn", "all", "completion"),
        (spec.dataset.format == "text", "dataset.format", "text", "prompts and completions, or chats"),
        (spec.dataset.test, "dataset.test", "records to compare on", "leaving it out"),
        (
            training.epochs is not None and not training.epochs.is_integer(),
            "training.epochs",
            training.epochs,
            "a whole number, or training.maxSteps",
        ),
        (training.schedule == "linear", "training.schedule", "linear", "cosine or constant"),
        (clips, "training.maxGradNorm", training.max_grad_norm, f"{Training().max_grad_norm:g}"),
        (training.gradient_checkpointing, "training.gradientCheckpointing", "true", "false"),
        (training.early_stopping, "training.earlyStopping", "limits of its own", "leaving it out"),
        (
            registry,
            "publish",
            registry,
            "leaving pvc, s3 and dataStore out, as the model goes to the service's Data Store",
        ),
        (spec.publish.replace, "publish.replace", "true", "false, as each job publishes its own version"),
        (spec.deletion_policy == "Delete", "deletionPolicy", "Delete", "Retain"),
    )
    yield from ((path, got, advice) for is_asked, path, got, advice in table if is_asked)
    yield from _about_pods(job)


def _about_pods(job: FineTuneJob) -> Iterator[tuple[str, Any, str]]:
    """Settings of our training pods and stages that are not the usual ones."""
    for path, value, usual in (
        ("evaluation", job.spec.evaluation, Evaluation()),
        ("checkpoint", job.spec.checkpoint, Checkpoint()),
        ("resources", job.spec.resources, Resources()),
        ("scheduling", job.spec.scheduling, Scheduling()),
    ):
        for field, got in value.model_dump(by_alias=True, exclude_none=True).items():
            if got != usual.model_dump(by_alias=True)[field]:
                yield f"{path}.{field}", got, "leaving it out"
