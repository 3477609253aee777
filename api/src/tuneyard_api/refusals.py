# SPDX-License-Identifier: Apache-2.0
"""Problems of a job with its runtime: each has a path of the job, and names what would be allowed."""

from collections.abc import Iterable
from dataclasses import dataclass

from tuneyard_api.data_stores import DataStoreRegistry
from tuneyard_api.job import FineTuneJob, Lora, Serve
from tuneyard_api.job_rules import batch_refusal
from tuneyard_api.methods import Method, Result, method_of
from tuneyard_api.places import ClaimSource, ModelStore, Registry, S3Registry
from tuneyard_api.planned_sources import data_stores, hub_sources, hub_tokens, s3_secrets, store_tokens
from tuneyard_api.quantities import quantity_value
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.serving import base_words, reads_registry_of, served_by, servers_of

_OFFLINE = "HF_HUB_OFFLINE"
_TRUE = frozenset({"1", "TRUE", "YES", "ON"})
"""What huggingface_hub takes for true in upper case (constants.ENV_VARS_TRUE_VALUES)."""
_PUBLISHED: dict[Result, tuple[str, str]] = {
    "model": ("a whole model", "models"),
    "prompt": ("virtual tokens", "prompts"),
}
"""What a method leaves behind that is no adapter of a server, and what a claim for it holds."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `path: message (got X); try Y`."""

    path: str
    message: str

    def __str__(self) -> str:
        """`spec.method: ...`."""
        return f"{self.path}: {self.message}"


def every_problem(
    job: FineTuneJob,
    runtime: FineTuneRuntime,
    others: Iterable[FineTuneRuntime],
    registry: Registry | None,
) -> tuple[Problem, ...]:
    """Every reason why `job` can't run on `runtime`; empty if there is none.

    `registry` is where its result would go; `others` are the runtimes that may have what this one lacks.
    """
    return (
        *_method_problems(job, runtime, others),
        *_batch_problems(job),
        *_permission_problems(job, runtime),
        *_capability_problems(job, runtime),
        *_process_problems(job),
        *_cpu_problems(job, runtime),
        *_hub_problems(job, runtime),
        *_credential_problems(job),
        *_early_stopping_problems(job),
        *_destination_problems(job, runtime, registry),
        *_server_problems(job, runtime),
        *_adapter_problems(job),
    )


def registry_of(job: FineTuneJob, runtime: FineTuneRuntime) -> Registry | None:
    """The registry that the job names, or its runtime's; a service that trains has its own."""
    if runtime.spec.customizer is not None:
        service = runtime.spec.customizer
        return ModelStore(
            url=service.data_store, entity_store=service.entity_store, namespace=job.metadata.namespace
        )
    return _of_namespace(job, job.spec.publish.any_registry or runtime.spec.defaults.any_registry)


def _of_namespace(
    job: FineTuneJob, registry: ClaimSource | S3Registry | DataStoreRegistry | None
) -> Registry | None:
    """The registry of a job; in a Data Store each namespace has its own."""
    if not isinstance(registry, DataStoreRegistry):
        return registry
    return ModelStore(
        url=registry.endpoint,
        entity_store=registry.entity_store,
        namespace=job.metadata.namespace,
        token=registry.secret_ref,
    )


def publishes_elsewhere(job: FineTuneJob, runtime: FineTuneRuntime) -> bool:
    """Whether the job publishes to another registry than the runtime's, which its served models read."""
    if runtime.spec.customizer is not None:
        return False
    own, usual = registry_of(job, runtime), _of_namespace(job, runtime.spec.defaults.any_registry)
    if isinstance(own, S3Registry) and isinstance(usual, S3Registry):
        return not own.is_same_place(usual)
    if isinstance(own, ModelStore) and isinstance(usual, ModelStore):
        return not own.is_same_place(usual)
    return usual is not None and own != usual


def processes(job: FineTuneJob) -> int:
    """The number of processes: one for each GPU of each node."""
    return job.spec.parallelism.nodes * job.spec.parallelism.gpus_per_node


def method_of_job(job: FineTuneJob) -> Method:
    """The job's method, and what it leaves behind."""
    return method_of(job.spec.method, dora=(job.spec.lora or Lora()).dora)


def is_for_adapter_servers(job: FineTuneJob, runtime: FineTuneRuntime) -> bool:
    """Whether a server of adapters loads what the runtime makes of the job; true for a method that it lacks."""
    return job.spec.method not in runtime.spec.methods or method_of_job(job).result == "adapter"


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
    """Problems of the batch sizes, also for jobs that bypassed the model's validation."""
    training, gpus = job.spec.training, processes(job)
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


def _capability_problems(job: FineTuneJob, runtime: FineTuneRuntime) -> Iterable[Problem]:
    asked, has = job.spec.model.quantization, runtime.spec.quantizations
    if asked is not None and asked not in has:
        other = f"{' or '.join(has)}, or leave it out" if has else "leaving it out, or another runtime"
        yield Problem(
            "spec.model.quantization",
            f"runtime {runtime.metadata.name} has {', '.join(has) or 'none'} (got {asked}); try {other}",
        )


def _process_problems(job: FineTuneJob) -> Iterable[Problem]:
    """Problems of methods that one process alone can train."""
    gpus = processes(job)
    if job.spec.method == "pTuning" and gpus > 1:
        yield Problem(
            "spec.parallelism",
            f"method pTuning trains on one GPU (got {gpus}); try gpusPerNode 1 and nodes 1, or method lora",
        )


def _cpu_problems(job: FineTuneJob, runtime: FineTuneRuntime) -> Iterable[Problem]:
    """CPU requests above the limit, where one number is the job's and the other the runtime's."""
    wishes, own, name = job.spec.resources, runtime.spec.train_resources, runtime.metadata.name
    if wishes.cpu_limit_cores is not None and wishes.cpu_cores is None:
        least = quantity_value(own.cpu)
        if wishes.cpu_limit_cores < least:
            yield Problem(
                "spec.resources.cpuLimitCores",
                f"runtime {name} asks for {own.cpu} CPU for training (got {wishes.cpu_limit_cores:g}); try {least.normalize():f},"
                " or resources.cpuCores as well",
            )
    if wishes.cpu_cores is not None and wishes.cpu_limit_cores is None and own.cpu_limit is not None:
        most = quantity_value(own.cpu_limit)
        if wishes.cpu_cores > most:
            yield Problem(
                "spec.resources.cpuCores",
                f"runtime {name} limits training to {own.cpu_limit} CPU (got {wishes.cpu_cores:g}); try {most.normalize():f}, or"
                " resources.cpuLimitCores as well",
            )


def _adapter_problems(job: FineTuneJob) -> Iterable[Problem]:
    """A job can't publish under the name of the adapter that it continues."""
    adapter, own = job.spec.model.adapter, job.spec.publish.adapter_name or job.metadata.name
    if adapter is not None and adapter.published == own and not job.spec.publish.replace:
        yield Problem(
            "spec.model.adapter.published",
            f"the job would publish under the name of the adapter that it continues, which is taken (got {own}); try another"
            " publish.adapterName, or publish.replace: true",
        )


def _credential_problems(job: FineTuneJob) -> Iterable[Problem]:
    """A pod has one variable for each kind of credential; the address of a Data Store decides who gets the token."""
    for what, found in (
        ("hub token", hub_tokens(job)),
        ("Secret for S3", s3_secrets(job)),
        ("Data Store to read from", data_stores(job)),
        ("token for its Data Store", store_tokens(job)),
    ):
        for path, got in found[1:]:
            first_path, first = found[0]
            if got != first:
                yield Problem(path, f"a job has one {what} (got {got}); try {first}, as in {first_path}")


def _hub_problems(job: FineTuneJob, runtime: FineTuneRuntime) -> Iterable[Problem]:
    """Sources on a hub, where the runtime's pods ask none: the first stage would fail."""
    if not any(each.name == _OFFLINE and each.value.upper() in _TRUE for each in runtime.spec.env):
        return
    for path, hub in hub_sources(job):
        yield Problem(
            path,
            f"pods of runtime {runtime.metadata.name} ask no hub ({_OFFLINE} is set; got {hub.repo}); try pvc with a copy of"
            " it, or a runtime with HF_ENDPOINT of a mirror",
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
    job: FineTuneJob, runtime: FineTuneRuntime, registry: Registry | None
) -> Iterable[Problem]:
    name = runtime.metadata.name
    if registry is None:
        yield Problem(
            "spec.publish",
            f"neither the job nor runtime {name} says where adapters go; try publish.pvc.claimName with the claim"
            " of your adapter registry, publish.s3 or publish.dataStore",
        )
    if registry is not None and not isinstance(registry, ClaimSource) and runtime.spec.customizer is None:
        yield from _problems_without_claim(job, registry)
    yield from _unserved_problems(job, runtime)


def _problems_without_claim(job: FineTuneJob, registry: S3Registry | ModelStore) -> Iterable[Problem]:
    """Problems of jobs that need a registry on a claim."""
    adapter = job.spec.model.adapter
    there = "S3" if isinstance(registry, S3Registry) else "a Data Store"
    if job.spec.deletion_policy == "Delete":
        yield Problem(
            "spec.deletionPolicy",
            f"an adapter in {there} is not removed with its job, and the registry is {registry} (got Delete); try Retain, or"
            " publish.pvc",
        )
    if isinstance(registry, ModelStore) and method_of_job(job).result == "prompt":
        yield Problem(
            "spec.publish",
            f"method {job.spec.method} publishes virtual tokens, which no NIM loads, and a Data Store lists models for NIMs (got"
            f" {registry}); try publish.pvc or publish.s3",
        )
    if adapter is not None and adapter.published is not None:
        yield Problem(
            "spec.model.adapter.published",
            f"a published adapter is read from a registry on a claim alone, and the registry is {registry} (got"
            f" {adapter.published}); try model.adapter.pvc with a copy of it",
        )


def _unserved_problems(job: FineTuneJob, runtime: FineTuneRuntime) -> Iterable[Problem]:
    """Problems of publishing what a server of adapters can't load: no such server must find it among its adapters."""
    if is_for_adapter_servers(job, runtime):
        return
    method, served, serve = method_of_job(job), runtime.spec.served_models, job.spec.serve
    result, claim = _PUBLISHED[method.result]
    said = f"method {method.name}{' with lora.dora' if (job.spec.lora or Lora()).dora else ''} publishes {result}"
    asked = None if serve is None or serve.disabled else serve.endpoint or serve.model or "none"
    if asked is not None and method.result == "prompt":
        yield Problem(
            "spec.serve",
            f"{said}, which neither vLLM nor NIM loads (got {asked}); try leaving serve out, or method lora",
        )
    elif asked is not None and serve is not None and serve.endpoint is None:
        yield Problem(
            "spec.serve",
            f"{said}, which a server of adapters does not load (got {asked}); try the address of a server that is"
            " started on the published folder, or leave serve out",
        )
    if runtime.spec.defaults.any_registry is not None and not publishes_elsewhere(job, runtime) and served:
        yield Problem(
            "spec.publish",
            f"{said}, and the registry of runtime {runtime.metadata.name} is read by {served[0].name} for adapters (got"
            f" {registry_of(job, runtime)}); try publish.pvc with a claim for {claim}",
        )


def _server_problems(job: FineTuneJob, runtime: FineTuneRuntime) -> Iterable[Problem]:
    """Problems of the server: an adapter fits only servers of its base model, and ranks up to their limit."""
    serve, served, name = job.spec.serve or Serve(), runtime.spec.served_models, runtime.metadata.name
    if serve.disabled or serve.endpoint is not None or not is_for_adapter_servers(job, runtime):
        return
    here = ", ".join(f"{each.name} ({each.base})" for each in served) or "none"
    named = next((each for each in served if each.name == serve.model), None)
    usual = _of_namespace(job, runtime.spec.defaults.any_registry)
    base, fitting = base_words(job.spec.model), [s for s in served if s.base.is_base_of(job.spec.model)]
    if serve.model is not None and named is None:
        yield Problem(
            "spec.serve.model", f"runtime {name} has these served models: {here} (got {serve.model})"
        )
    elif named is not None and not named.base.is_base_of(job.spec.model):
        yield Problem(
            "spec.serve.model",
            f"{named.name} serves {named.base}, and an adapter fits its own base model alone (got {base}); try"
            " a served model of that base, or serve.disabled: true",
        )
    elif named is not None and not reads_registry_of(job, named):
        yield Problem(
            "spec.serve.model",
            f"{named.name} reads the registry of namespace {', '.join(named.namespaces or ())} alone (got"
            f" {job.metadata.namespace}); try that namespace, or serve.disabled: true",
        )
    elif job.spec.serve is not None and not served:
        yield Problem(
            "spec.serve",
            f"neither the job nor runtime {name} says which endpoint serves the adapter (got none); try"
            " serve.endpoint, or leave serve out",
        )
    elif named is None and fitting and not servers_of(job, served):
        namespaces = ", ".join(sorted({name for each in fitting for name in each.namespaces or ()}))
        yield Problem(
            "spec.model",
            f"{', '.join(each.name for each in fitting)} has this base model and reads the registry of namespace"
            f" {namespaces} alone (got {job.metadata.namespace}); try that namespace, or serve.disabled: true to"
            " publish only",
        )
    elif served and named is None and not fitting:
        yield Problem(
            "spec.model",
            f"no server of runtime {name} has this base model; it has {here} (got {base}); try one of them,"
            " serve.endpoint with a server of your own, or serve.disabled: true to publish only",
        )
    elif served and fitting and publishes_elsewhere(job, runtime):
        yield Problem(
            "spec.publish",
            f"the served models of runtime {name} read the registry {usual} alone (got"
            f" {registry_of(job, runtime)}); try leaving it out, serve.endpoint with a server that reads your registry, or"
            " serve.disabled: true to publish only",
        )
    elif isinstance(usual, ModelStore) and (deaf := served_by(job, served)) and deaf.server != "nim":
        yield Problem(
            "spec.publish",
            f"{deaf.name} is no NIM, and only a NIM reads a Data Store (got {usual}); try publish.pvc or publish.s3, a served"
            " model on a NIM, or serve.disabled: true to publish only",
        )
    model, rank = served_by(job, served), (job.spec.lora or Lora()).rank
    if model is not None and model.max_lora_rank is not None and rank > model.max_lora_rank:
        yield Problem(
            "spec.lora.rank",
            f"{model.name} takes ranks up to {model.max_lora_rank} (got {rank}); try {model.max_lora_rank}, or"
            " serve.disabled: true",
        )
    is_named_by_version = isinstance(registry_of(job, runtime), ModelStore)
    if model is not None and model.server == "nim" and job.spec.publish.replace and not is_named_by_version:
        yield Problem(
            "spec.publish.replace",
            f"{model.name} is a NIM, and no NIM says which version of an adapter it answers with (got true); try another"
            " publish.adapterName, or serve.disabled: true",
        )
