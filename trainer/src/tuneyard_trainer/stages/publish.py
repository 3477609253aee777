# SPDX-License-Identifier: Apache-2.0
"""The stage `publish` puts the adapter, or the model of a full fine-tuning, into the registry, atomically and once.

It is stored by name and digest, on a claim (`registry.claim`), in S3 (`registry.bucket`) or in a NeMo Data Store (`registry.repository`). A version holds what PEFT, NIM and vLLM read: adapter_config.json and adapter_model.safetensors, or the files of a model.
Beside them, as on a hub, are README.md and its picture, and the record of the job (`record.keep`). A name that stands for another version is left alone, unless
the job says that it may be replaced.
"""

import os
import time
from pathlib import Path

from tuneyard_api.evaluation_facts import EvaluationFacts
from tuneyard_api.gate import KeptEvaluation, Served, why_refused
from tuneyard_api.pod_contract import (
    RETRIED,
    FailureClass,
    PublishFacts,
    ResolvedJob,
    Stage,
    TrainFacts,
)
from tuneyard_api.registry import Publisher, Version

from tuneyard_trainer.model.former_adapter import lora_as_trained
from tuneyard_trainer.pod.context import StageContext
from tuneyard_trainer.pod.failures import StageFailure, bad_input
from tuneyard_trainer.pod.results import earlier_success
from tuneyard_trainer.record.keep import keep_record
from tuneyard_trainer.record.samples import read_trial
from tuneyard_trainer.registry.bucket import BucketRegistry
from tuneyard_trainer.registry.card import PICTURE, draw_loss_curve, render_card
from tuneyard_trainer.registry.claim import ClaimRegistry
from tuneyard_trainer.registry.content import Content
from tuneyard_trainer.registry.repository import RepositoryRegistry
from tuneyard_trainer.tracking.complete import complete
from tuneyard_trainer.workspace.layout import (
    METRICS,
    PREPARED,
    SAMPLES,
    stored_base,
    tuned_digest,
    tuned_files,
    tuned_folder,
)
from tuneyard_trainer.workspace.prepared import Index, held_out_digest

_AnyRegistry = ClaimRegistry | BucketRegistry | RepositoryRegistry


def publish(context: StageContext) -> PublishFacts:
    """Runs the stage; published before with the same digest counts as done.

    Raises:
        StageFailure: GateFailed, if evaluation.gate is not met; AdapterConflict, if the name is taken by another adapter;
            BadInput, if nothing is trained; what the store of a registry in S3 refuses.
    """
    context.board.update(phase="publishing")
    job = context.job
    trained = earlier_success(context.workspace, Stage.TRAIN, context.plan_digest)
    source = tuned_folder(context.workspace, job)
    if trained is None or not tuned_files(source):
        raise bad_input(f"{source}: there is nothing finished of this plan; run stage train first")
    done = TrainFacts.model_validate(trained.facts)
    version = _version(context, source, done.evaluation)

    def describe(folder: Path) -> None:
        has_picture = draw_loss_curve(context.workspace / METRICS, folder / PICTURE, job.kind.loss_unit)
        card = render_card(context, trained, version, has_picture=has_picture)
        (folder / "README.md").write_text(card, encoding="utf-8")
        keep_record(folder, context, trained, version)

    def admit(found: Version | None) -> None:
        _ask_gate(context, version, found)

    registry = _registry(job, context.workspace)
    content = Content(source, describe, admit)
    try:
        path = registry.publish(version, content, job.uid, replace=job.replace)
    except StageFailure as failure:
        if failure.failure_class not in RETRIED:
            complete(context, done, version.digest, str(failure))
        raise
    _retire(context, registry)
    tracked = complete(context, done, version.digest)
    listed = registry.listed_as(version) if isinstance(registry, RepositoryRegistry) else version.name
    return PublishFacts(
        adapter_name=listed,
        digest=version.digest,
        path=path,
        size_bytes=sum((source / name).stat().st_size for name in version.files),
        tracking=tracked.address,
        warnings=tracked.warnings,
    )


def _ask_gate(context: StageContext, version: Version, found: Version | None) -> None:
    """Let the version pass that the name is to stand for instead of the one that was found.

    Raises:
        StageFailure: GateFailed.
    """
    # A version is not compared with itself: another job, or an attempt that was killed, may have published it.
    served = None
    if found is not None and found.digest != version.digest:
        served = Served(found.digest, found.evaluation)
    kept = version.evaluation
    facts, measured_on = (kept.facts, kept.records_digest) if kept else (None, None)
    refusal = why_refused(context.job.evaluation.gate, facts, served, measured_on)
    if refusal is not None:
        raise StageFailure(FailureClass.GATE_FAILED, refusal)


def _retire(context: StageContext, registry: _AnyRegistry) -> None:
    """Remove earlier versions; what stays because of an error is tried again by the next job that publishes."""
    job = context.job
    if job.retention is None:
        return
    try:
        for digest in registry.retire(job.adapter_name, job.retention, time.time()):
            context.board.say(f"retired {job.adapter_name} {digest}")
    except (OSError, StageFailure) as error:
        context.board.say(f"earlier versions of {job.adapter_name} could not be retired: {error}")


def _registry(job: ResolvedJob, workspace: Path) -> _AnyRegistry:
    if job.registry_data_store is not None:
        return RepositoryRegistry.of(job.registry_data_store, job.namespace, os.environ, workspace)
    if job.registry_s3 is not None:
        return BucketRegistry.of(job.registry_s3, os.environ, workspace)
    if job.registry_path is not None:
        return ClaimRegistry(Path(job.registry_path))
    raise bad_input("job.json names no registry")


def _version(context: StageContext, source: Path, evaluation: EvaluationFacts | None) -> Version:
    job = context.job
    measured_on = held_out_digest(context.workspace, job) if evaluation else None
    kept = None
    if evaluation is not None and measured_on is not None:
        kept = KeptEvaluation(facts=evaluation, records_digest=measured_on)
    is_lora = job.kind.result == "adapter"
    return Version(
        name=job.adapter_name,
        digest=tuned_digest(source),
        files=tuple(tuned_files(source)),
        base=stored_base(job, Index.load(context.workspace).model_revision),
        method=job.method,
        rank=lora_as_trained(job, context.workspace / PREPARED).rank if is_lora else None,
        evaluation=kept,
        trial=read_trial(context.workspace / SAMPLES, job.trial, job.evaluation.max_new_tokens)
        if is_lora
        else None,
        job=Publisher(namespace=job.namespace, name=job.name, uid=job.uid),
    )
