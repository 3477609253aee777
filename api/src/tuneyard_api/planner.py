# SPDX-License-Identifier: Apache-2.0
"""Fills in what a job leaves open, from its runtime and by arithmetic. Pure: same job, same plan, same digest.

What one object alone can get wrong is refused by its model. What job and runtime get wrong together is refused
here, all of it at once, each problem under a path of the job and with what would be allowed.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from tuneyard_api import pod_contract as pod
from tuneyard_api import reasons
from tuneyard_api.job import ClaimSource, DataSource, FineTuneJob, Lora, ModelSource, SecretKey
from tuneyard_api.job_rules import batch_refusal
from tuneyard_api.names import workspace_name
from tuneyard_api.pod_contract import Stage
from tuneyard_api.runtime import FineTuneRuntime

DEFAULT_EPOCHS = 1.0
WHOLE_MODEL_METHODS = frozenset({"sft"})
"""Methods whose result is a model and no adapter."""
DEFAULT_VALIDATION_FRACTION = 0.05
DEFAULT_SERVE_TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `path: message (got X); try Y`."""

    path: str
    message: str

    def __str__(self) -> str:
        """`spec.method: ...`."""
        return f"{self.path}: {self.message}"


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
    registry: ClaimSource
    endpoint: str | None
    serve_timeout_seconds: int
    workspace_size_gib: int
    storage_class_name: str | None
    mounts: tuple[Mount, ...]
    """Claims of all stages."""
    hub_token: SecretKey | None
    """Where the prepare pod's hub token comes from."""
    digest: str
    """SHA-256 of job.json without uid, hex."""

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
    registry = spec.publish.pvc or offered.defaults.registry
    endpoint = (spec.serve and spec.serve.endpoint) or _usual_endpoint(job, runtime)
    micro = _micro_batch(job, runtime)
    problems = (
        *_method_problems(job, runtime, others),
        *_batch_problems(job),
        *_permission_problems(job, runtime),
        *_token_problems(job),
        *_early_stopping_problems(job),
        *_destination_problems(job, runtime, registry, endpoint),
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
        model=_resolved_source("model", spec.model),
        dataset=_resolved_dataset(job),
        method=spec.method,
        lora=spec.lora or Lora(),
        training=_resolved_training(job, micro),
        nodes=spec.parallelism.nodes,
        gpus_per_node=spec.parallelism.gpus_per_node,
        checkpoint=spec.checkpoint,
        evaluation=spec.evaluation,
        adapter_name=spec.publish.adapter_name or job.metadata.name,
        registry_path=_inside(pod.REGISTRY_DIR, registry),
    )
    return Plan(
        resolved=resolved,
        model=spec.model,
        registry=registry,
        endpoint=endpoint,
        serve_timeout_seconds=spec.serve.timeout_seconds if spec.serve else DEFAULT_SERVE_TIMEOUT_SECONDS,
        workspace_size_gib=spec.workspace.size_gib or offered.defaults.workspace_size_gib,
        storage_class_name=spec.workspace.storage_class_name or offered.defaults.storage_class_name,
        mounts=_mounts(job, runtime, registry),
        hub_token=next((secret for _, secret in _hub_tokens(job)), None),
        digest=digest_of(resolved),
    )


def digest_of(resolved: pod.ResolvedJob) -> str:
    """SHA-256, in hex, of job.json without the uid: a job that is deleted and applied again keeps its digest."""
    content = resolved.model_dump(mode="json", exclude={"uid"})
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _micro_batch(job: FineTuneJob, runtime: FineTuneRuntime) -> int:
    """As asked, else the largest divisor of one GPU's share that is not above the runtime's default."""
    training = job.spec.training
    if training.micro_batch_size is not None:
        return training.micro_batch_size
    share = training.global_batch_size // _processes(job)
    largest = min(share, runtime.spec.defaults.micro_batch_size)
    return next((size for size in range(largest, 1, -1) if share % size == 0), 1)


def _processes(job: FineTuneJob) -> int:
    """One for each GPU of each node."""
    return job.spec.parallelism.nodes * job.spec.parallelism.gpus_per_node


def _usual_endpoint(job: FineTuneJob, runtime: FineTuneRuntime) -> str | None:
    """The runtime's, which serves adapters of a base model: a whole model needs a server of its own."""
    return None if _is_whole_model(job, runtime) else runtime.spec.defaults.endpoint


def _is_whole_model(job: FineTuneJob, runtime: FineTuneRuntime) -> bool:
    """Whether the runtime will make a model, not an adapter; a method that it lacks is refused for that alone."""
    return job.spec.method in WHOLE_MODEL_METHODS and job.spec.method in runtime.spec.methods


def _method_problems(
    job: FineTuneJob, runtime: FineTuneRuntime, others: Iterable[FineTuneRuntime]
) -> Iterable[Problem]:
    method, has = job.spec.method, runtime.spec.methods
    if method in has:
        return
    able = sorted(other.metadata.name for other in others if method in other.spec.methods)
    advice = f"runtime {' or '.join(able)}, which has it" if able else " or ".join(sorted(has))
    yield Problem(
        "spec.method",
        f"runtime {runtime.metadata.name} has {', '.join(sorted(has))} (got {method}); try {advice}",
    )


def _batch_problems(job: FineTuneJob) -> Iterable[Problem]:
    """Refused by the model already; a job that was copied with other numbers meets it here."""
    training, gpus = job.spec.training, _processes(job)
    message = batch_refusal(training.global_batch_size, training.micro_batch_size, gpus)
    if message:
        yield Problem("spec.training.globalBatchSize", message)


def _permission_problems(job: FineTuneJob, runtime: FineTuneRuntime) -> Iterable[Problem]:
    precision, has = job.spec.training.precision, runtime.spec.precisions
    if precision != "auto" and precision not in has:
        yield Problem(
            "spec.training.precision",
            f"runtime {runtime.metadata.name} has {', '.join(has)} (got {precision}); try auto",
        )
    if job.spec.model.trust_remote_code and not runtime.spec.allow_trust_remote_code:
        yield Problem(
            "spec.model.trustRemoteCode",
            f"runtime {runtime.metadata.name} does not allow Python that comes with a model (got true); try false,"
            " or a model that transformers knows by itself",
        )


def _token_problems(job: FineTuneJob) -> Iterable[Problem]:
    tokens = _hub_tokens(job)
    for path, secret in tokens[1:]:
        if secret != tokens[0][1]:
            first, other = tokens[0][1], f"{secret.name}/{secret.key}"
            yield Problem(
                path,
                f"a job has one hub token (got {other}); try {first.name}/{first.key}, as in {tokens[0][0]}",
            )


def _early_stopping_problems(job: FineTuneJob) -> Iterable[Problem]:
    dataset = job.spec.dataset
    if job.spec.training.early_stopping and dataset.validation is None and dataset.validation_fraction == 0:
        yield Problem(
            "spec.training.earlyStopping",
            "it looks at the loss of validation records, and there are none (got validationFraction 0); try"
            " dataset.validation or dataset.validationFraction 0.05",
        )


def _destination_problems(
    job: FineTuneJob, runtime: FineTuneRuntime, registry: ClaimSource | None, endpoint: str | None
) -> Iterable[Problem]:
    name = runtime.metadata.name
    if registry is None:
        yield Problem(
            "spec.publish",
            f"neither the job nor runtime {name} says where adapters go; try publish.pvc.claimName with the claim"
            " of your adapter registry",
        )
    yield from _whole_model_problems(job, runtime)
    if job.spec.serve is not None and endpoint is None and not _is_whole_model(job, runtime):
        yield Problem(
            "spec.serve",
            f"neither the job nor runtime {name} says which endpoint serves the adapter; try serve.endpoint, or leave"
            " serve out",
        )


def _whole_model_problems(job: FineTuneJob, runtime: FineTuneRuntime) -> Iterable[Problem]:
    """A server of adapters neither loads a whole model nor likes to find one among them."""
    method, served = job.spec.method, runtime.spec.defaults.endpoint
    if not _is_whole_model(job, runtime):
        return
    if job.spec.serve is not None and job.spec.serve.endpoint is None:
        yield Problem(
            "spec.serve",
            f"method {method} publishes a whole model, which a server of adapters does not load (got none); try the"
            " address of a server that is started on the published folder, or leave serve out",
        )
    if job.spec.publish.pvc is None and runtime.spec.defaults.registry is not None and served is not None:
        yield Problem(
            "spec.publish",
            f"method {method} publishes a whole model, and the registry of runtime {runtime.metadata.name} is read by"
            f" {served} for adapters (got none); try a claim for models",
        )


def _splits(job: FineTuneJob) -> Iterable[tuple[str, DataSource]]:
    dataset = job.spec.dataset
    for name, source in (
        ("training", dataset.training),
        ("validation", dataset.validation),
        ("test", dataset.test),
    ):
        if source is not None:
            yield name, source


def _hub_tokens(job: FineTuneJob) -> list[tuple[str, SecretKey]]:
    """Every secretRef of the job under its path, the model's first."""
    sources = [("spec.model", job.spec.model.hugging_face)]
    sources += [(f"spec.dataset.{name}", split.hugging_face) for name, split in _splits(job)]
    return [
        (f"{path}.huggingFace.secretRef", hub.secret_ref)
        for path, hub in sources
        if hub is not None and hub.secret_ref
    ]


def _inside(folder: str, claim: ClaimSource) -> str:
    return f"{folder}/{claim.path}" if claim.path else folder


def _resolved_source(role: str, source: ModelSource | DataSource) -> pod.ResolvedSource:
    if source.pvc is not None:
        return pod.ResolvedSource(path=_inside(f"{pod.SOURCES_DIR}/{role}", source.pvc))
    hub = source.hugging_face
    if hub is None:
        raise AssertionError(f"{role} has no source, which its model does not allow")
    return pod.ResolvedSource(repo=hub.repo, revision=hub.revision, path=getattr(hub, "path", None))


def _resolved_dataset(job: FineTuneJob) -> pod.ResolvedDataset:
    dataset = job.spec.dataset
    splits = {name: _resolved_source(name, split) for name, split in _splits(job)}
    fraction = dataset.validation_fraction
    if dataset.validation is not None:
        fraction = 0.0
    elif fraction is None:
        fraction = DEFAULT_VALIDATION_FRACTION
    return pod.ResolvedDataset(
        training=splits["training"],
        validation=splits.get("validation"),
        validation_fraction=fraction,
        test=splits.get("test"),
        format=dataset.format,
        template=dataset.template,
        loss_on=dataset.loss_on,
    )


def _resolved_training(job: FineTuneJob, micro: int) -> pod.ResolvedTraining:
    training, gpus = job.spec.training, _processes(job)
    as_written = training.model_dump(by_alias=False, exclude={"epochs", "micro_batch_size"})
    epochs = training.epochs
    if epochs is None and training.max_steps is None:
        epochs = DEFAULT_EPOCHS
    return pod.ResolvedTraining(
        **as_written,
        epochs=epochs,
        micro_batch_size=micro,
        data_parallel=gpus,
        gradient_accumulation=training.global_batch_size // (micro * gpus),
    )


def _mounts(job: FineTuneJob, runtime: FineTuneRuntime, registry: ClaimSource) -> tuple[Mount, ...]:
    """Data reaches the prepare pod alone, the registry the publish pod alone; training reads the workspace."""
    sources = [("model", job.spec.model.pvc), *((name, split.pvc) for name, split in _splits(job))]
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
        if stage is Stage.PUBLISH:
            mounts.append(Mount(stage, registry.claim_name, pod.REGISTRY_DIR, read_only=False))
        mounts += [
            Mount(stage, own.claim_name, own.mount_path, read_only=True) for own in runtime.spec.mounts
        ]
    return tuple(mounts)
