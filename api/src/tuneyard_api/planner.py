# SPDX-License-Identifier: Apache-2.0
"""Fills in what a job leaves open, from its runtime and by arithmetic. Pure: the same job gives the same plan.

What one object alone can get wrong is refused by its model. What job and runtime get wrong together is refused
here, all of it at once, each problem under a path of the job and with what would be allowed.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from tuneyard_api import pod_contract as pod
from tuneyard_api import reasons
from tuneyard_api.customizer_refusals import customizer_problems
from tuneyard_api.data_stores import ResolvedDataStore
from tuneyard_api.job import Dpo, FineTuneJob, Lora, PTuning
from tuneyard_api.job_inputs import ModelSource
from tuneyard_api.names import workspace_name
from tuneyard_api.places import ClaimSource, ModelStore, Registry, S3Prefix, S3Registry
from tuneyard_api.planned_sources import (
    adapter_claim,
    hub_tokens,
    inside,
    resolved_adapter,
    resolved_source,
    s3_secrets,
    splits,
    store_tokens,
)
from tuneyard_api.pod_contract import Stage
from tuneyard_api.refusals import (
    Problem,
    every_problem,
    is_for_adapter_servers,
    method_of_job,
    processes,
    publishes_elsewhere,
    registry_of,
)
from tuneyard_api.remote_files import SecretKey
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.serving import Destination, ServedModel, destination_of, served_by
from tuneyard_api.tracking import MAX_EXPERIMENT, ResolvedTracking
from tuneyard_api.workspace_size import workspace_gib

DEFAULT_EPOCHS = 1.0
DEFAULT_REVISION = "main"
DEFAULT_VALIDATION_FRACTION = 0.05
DEFAULT_SERVE_TIMEOUT_SECONDS = 600


class PlanRefused(ValueError):  # noqa: N818  the plan is refused; nothing went wrong
    """The job can't run on this runtime; carries everything that stands in the way."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems

    @property
    def reason(self) -> str:
        """The condition's reason; a missing method outweighs what else is wrong, as another runtime may mend that."""
        is_method = any(problem.path == "spec.method" for problem in self.problems)
        return reasons.METHOD_NOT_IN_RUNTIME if is_method else reasons.PLAN_REFUSED


@dataclass(frozen=True)
class Mount:
    """A claim of the job's namespace in the pods of one stage."""

    stage: Stage
    claim: str
    path: str
    """Absolute path in the pod; the whole claim appears there."""
    read_only: bool


@dataclass(frozen=True)
class Plan:
    """A job with nothing left to decide."""

    resolved: pod.ResolvedJob
    model: ModelSource
    registry: Registry
    destination: Destination | None
    """The server that must answer with the adapter; None: the job ends after publish."""
    serve_timeout_seconds: int
    workspace_size_gib: int
    storage_class_name: str | None
    access_mode: str | None
    """Access mode of the workspace, as the job says."""
    mounts: tuple[Mount, ...]
    """Claims of all stages."""
    hub_token: SecretKey | None
    """Where the prepare pod's hub token comes from."""
    hub_token_is_optional: bool
    """The runtime's token, not one that the job asks for."""
    s3_secret: str | None
    """Secret that the prepare pod's S3 credentials come from."""
    registry_secret: str | None
    """Secret with the publish pod's credentials for a registry in S3."""
    source_token: SecretKey | None
    """Where the prepare pod's token for the Data Store that it reads comes from."""
    registry_token: SecretKey | None
    """Where the publish pod's token for a registry in a Data Store comes from."""
    digest: str
    """SHA-256 of job.json without uid, hex."""
    upload_token: SecretKey | None = None
    """Where the prepare pod's token for the Data Store comes from."""

    @property
    def registry_claim(self) -> str | None:
        """The claim of the registry; None: it is elsewhere."""
        return self.registry.claim_name if isinstance(self.registry, ClaimSource) else None

    @property
    def adapter_path(self) -> str:
        """The place of the adapter's name: a path in a pod that mounts the registry, `s3://...` or `hf://namespace/name`."""
        return f"{self.resolved.registry_path or self.registry}/{self.resolved.adapter_name}"

    def stage_mounts(self, stage: Stage) -> tuple[Mount, ...]:
        """The claims that pods of `stage` mount, in a fixed order; a claim may appear at several paths."""
        return tuple(mount for mount in self.mounts if mount.stage is stage)


def make_plan(job: FineTuneJob, runtime: FineTuneRuntime, others: Iterable[FineTuneRuntime] = ()) -> Plan:
    """The plan of `job` on `runtime`, which must be the one that the job names.

    `others` are the runtimes of the cluster; they only make the refusal of a method more helpful.

    Raises:
        PlanRefused: with every problem that job and runtime have together.
    """
    spec, offered = job.spec, runtime.spec
    registry = registry_of(job, runtime)
    is_served = is_for_adapter_servers(job, runtime) and not publishes_elsewhere(job, runtime)
    served = offered.served_models if is_served else ()
    micro, benchmarks = _micro_batch(job, runtime), spec.evaluation.benchmarks
    others = tuple(others)
    problems = (
        *every_problem(job, runtime, others, registry),
        *customizer_problems(job, runtime, others),
    )
    if problems or registry is None:
        raise PlanRefused(problems)
    resolved = pod.ResolvedJob(
        name=job.metadata.name,
        namespace=job.metadata.namespace,
        uid=job.metadata.uid,
        runtime=pod.ResolvedRuntime(
            name=runtime.metadata.name,
            accelerator=offered.accelerator,
            precisions=offered.precisions,
            model_families=offered.model_families,
            trust_remote_code=spec.model.trust_remote_code,
        ),
        model=_resolved_model(job, served_by(job, served)),
        dataset=_resolved_dataset(job),
        adapter=resolved_adapter(job, registry),
        quantization=spec.model.quantization,
        method=spec.method,
        lora=spec.lora or Lora(),
        dpo=(spec.dpo or Dpo()) if spec.method == "dpo" else None,
        p_tuning=(spec.p_tuning or PTuning()) if spec.method == "pTuning" else None,
        training=_resolved_training(job, micro),
        nodes=spec.parallelism.nodes,
        gpus_per_node=spec.parallelism.gpus_per_node,
        checkpoint=spec.checkpoint,
        evaluation=spec.evaluation,
        benchmarks_path=inside(f"{pod.SOURCES_DIR}/benchmarks", benchmarks.pvc) if benchmarks else None,
        adapter_name=spec.publish.adapter_name or job.metadata.name,
        replace=spec.publish.replace,
        trial=spec.publish.trial,
        registry_path=inside(pod.REGISTRY_DIR, registry) if isinstance(registry, ClaimSource) else None,
        registry_s3=_s3_prefix(registry),
        registry_data_store=_in_data_store(job, runtime, registry, served_by(job, served)),
        data_store=offered.customizer.data_store if offered.customizer else None,
        retention=offered.registry_retention,
        tracking=_tracking(job, runtime),
    )
    return Plan(
        resolved=resolved,
        model=spec.model,
        registry=registry,
        destination=destination_of(job, served),
        serve_timeout_seconds=spec.serve.timeout_seconds if spec.serve else DEFAULT_SERVE_TIMEOUT_SECONDS,
        workspace_size_gib=spec.workspace.size_gib or _workspace_gib(job, runtime),
        storage_class_name=spec.workspace.storage_class_name or offered.defaults.storage_class_name,
        access_mode=spec.workspace.access_mode,
        mounts=_mounts(job, runtime, registry),
        hub_token=next((secret for _, secret in hub_tokens(job)), offered.defaults.hub_token),
        hub_token_is_optional=not hub_tokens(job),
        s3_secret=next((name for _, name in s3_secrets(job)), None),
        upload_token=offered.customizer.data_store_token if offered.customizer else None,
        registry_secret=registry.secret_ref.name if isinstance(registry, S3Registry) else None,
        source_token=next((secret for _, secret in store_tokens(job)), None),
        registry_token=registry.token if isinstance(registry, ModelStore) else None,
        digest=digest_of(resolved),
    )


def digest_of(resolved: pod.ResolvedJob) -> str:
    """SHA-256, in hex, of job.json without what changes no work.

    So a job that is deleted and applied again keeps its digest, and a tracker has nothing to do with it.
    """
    content = resolved.model_dump(mode="json", exclude={"uid", "tracking"})
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def smaller_micro_batch(micro: int, accumulation: int) -> int | None:
    """Half as many sequences at a time for the same global batch, or fewer where that does not divide; None below 1."""
    share = micro * accumulation
    return next((size for size in range(micro // 2, 0, -1) if share % size == 0), None)


def _tracking(job: FineTuneJob, runtime: FineTuneRuntime) -> ResolvedTracking | None:
    """Where the job's record is copied to; a service that trains has a tracker of its own."""
    offered, wanted = runtime.spec.tracking, job.spec.tracking
    if offered is None or wanted.disabled or runtime.spec.customizer is not None:
        return None
    name = f"{job.metadata.namespace}/{_base_name(job).rpartition('/')[2]}"[:MAX_EXPERIMENT]
    return ResolvedTracking(mlflow=offered.mlflow, experiment=wanted.experiment or name)


def _base_name(job: FineTuneJob) -> str:
    """The base model's name for people: its repository, or the folder of its claim without those above it."""
    hub, claim = job.spec.model.hugging_face, job.spec.model.pvc
    if hub is not None:
        return hub.repo
    return (claim.path or claim.claim_name).rstrip("/").rpartition("/")[2] if claim is not None else ""


def _workspace_gib(job: FineTuneJob, runtime: FineTuneRuntime) -> int:
    spec, defaults = job.spec, runtime.spec.defaults
    if runtime.spec.customizer is not None:
        return defaults.workspace_size_gib  # The service has the weights; here is only what prepare uploads.
    hub, claim = spec.model.hugging_face, spec.model.pvc
    estimated = workspace_gib(
        model=hub.repo if hub else (claim.path if claim and claim.path else ""),
        method=method_of_job(job),
        rank=(spec.lora or Lora()).rank,
        checkpoints=spec.checkpoint.keep,
        is_downloaded=hub is not None and runtime.spec.model_cache is None,
    )
    return max(estimated or 0, defaults.workspace_size_gib)


def _micro_batch(job: FineTuneJob, runtime: FineTuneRuntime) -> int:
    """The job's micro batch, else the largest divisor of one GPU's share that is at most the runtime's default."""
    training = job.spec.training
    if training.micro_batch_size is not None:
        return training.micro_batch_size
    share = training.global_batch_size // processes(job)
    largest = min(share, runtime.spec.defaults.micro_batch_size)
    return next((size for size in range(largest, 1, -1) if share % size == 0), 1)


def _s3_prefix(registry: Registry) -> S3Prefix | None:
    """A registry in S3 for the publish pod, without the name of its Secret."""
    if not isinstance(registry, S3Registry):
        return None
    return S3Prefix(**registry.model_dump(by_alias=False, exclude={"secret_ref"}))


def _in_data_store(
    job: FineTuneJob, runtime: FineTuneRuntime, registry: Registry, served: ServedModel | None
) -> ResolvedDataStore | None:
    """A registry in a Data Store for the publish pod; a service that trains needs none."""
    if not isinstance(registry, ModelStore) or runtime.spec.customizer is not None:
        return None
    listed = served.listed_as if served is not None else None
    return ResolvedDataStore(
        endpoint=registry.url, entity_store=registry.entity_store, base_model=listed or _base_name(job)
    )


def _with_revision(source: pod.ResolvedSource, revision: str = DEFAULT_REVISION) -> pod.ResolvedSource:
    """The source with this revision, if the job names none."""
    is_open = source.repo is not None and source.revision is None
    return source.model_copy(update={"revision": revision}) if is_open else source


def _resolved_model(job: FineTuneJob, served: ServedModel | None) -> pod.ResolvedSource:
    """The source of the model; without a revision it is the served one, so that the adapter fits."""
    base = served.base.hugging_face if served is not None else None
    source = resolved_source("model", job.spec.model)
    return _with_revision(source, base.revision if base is not None else DEFAULT_REVISION)


def _resolved_dataset(job: FineTuneJob) -> pod.ResolvedDataset:
    dataset = job.spec.dataset
    sources = {name: _with_revision(resolved_source(name, split)) for name, split in splits(job)}
    fraction = dataset.validation_fraction
    if dataset.validation is not None:
        fraction = 0.0
    elif fraction is None:
        fraction = DEFAULT_VALIDATION_FRACTION
    return pod.ResolvedDataset(
        training=sources["training"],
        validation=sources.get("validation"),
        validation_fraction=fraction,
        test=sources.get("test"),
        format="preference" if job.spec.method == "dpo" else dataset.format,
        template=dataset.template,
        loss_on=dataset.loss_on,
    )


def _resolved_training(job: FineTuneJob, micro: int) -> pod.ResolvedTraining:
    training, gpus = job.spec.training, processes(job)
    as_written = training.model_dump(
        by_alias=False, exclude={"epochs", "micro_batch_size", "gradient_checkpointing"}
    )
    epochs = training.epochs
    if epochs is None and training.max_steps is None:
        epochs = DEFAULT_EPOCHS
    return pod.ResolvedTraining(
        **as_written,
        epochs=epochs,
        gradient_checkpointing=bool(training.gradient_checkpointing),
        micro_batch_size=micro,
        data_parallel=gpus,
        gradient_accumulation=training.global_batch_size // (micro * gpus),
    )


def _mounts(job: FineTuneJob, runtime: FineTuneRuntime, registry: Registry) -> tuple[Mount, ...]:
    """The mounts of each stage: only prepare has the data, only publish the registry; training reads the workspace."""
    benchmarks = job.spec.evaluation.benchmarks
    sources = [
        ("model", job.spec.model.pvc),
        ("adapter", adapter_claim(job, registry)),
        *((name, split.pvc) for name, split in splits(job)),
        ("benchmarks", benchmarks.pvc if benchmarks else None),
    ]
    mounts = []
    for stage in Stage:
        mounts.append(Mount(stage, workspace_name(job.metadata.name), pod.WORKSPACE_DIR, read_only=False))
        mounts += [
            Mount(stage, claim.claim_name, f"{pod.SOURCES_DIR}/{role}", read_only=True)
            for role, claim in sources
            if claim is not None and (stage is Stage.PREPARE or (stage is Stage.TRAIN and role == "model"))
        ]
        if runtime.spec.model_cache and stage is not Stage.PUBLISH:
            writes = stage is Stage.PREPARE
            mounts.append(Mount(stage, runtime.spec.model_cache, pod.MODEL_CACHE_DIR, read_only=not writes))
        if stage is Stage.PUBLISH and isinstance(registry, ClaimSource):
            mounts.append(Mount(stage, registry.claim_name, pod.REGISTRY_DIR, read_only=False))
        mounts += [
            Mount(stage, own.claim_name, own.mount_path, read_only=True) for own in runtime.spec.mounts
        ]
    return tuple(mounts)
