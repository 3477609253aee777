# SPDX-License-Identifier: Apache-2.0
"""Checks storage: the capacity of each class, and ReadWriteMany where several nodes mount a claim."""

from collections.abc import Iterator

from tuneyard_api.runtime import RuntimeDefaults

from tuneyard.catalog.nim_cache import engine_of_nim, profile_gpu
from tuneyard.checks.memory import WEIGHT_BYTES, architecture_of
from tuneyard.environment.models import ServedModel
from tuneyard.environment.presets import engine_of
from tuneyard.findings import Finding, Severity
from tuneyard.stack.model import Stack

_LOCAL = ("local-path", "hostpath", "standard", "local-storage")


def shared_claims_have_a_class(stack: Stack) -> Iterator[Finding]:
    """Claims that several nodes mount have a ReadWriteMany class."""
    if stack.environment.storage.read_write_many:
        return
    for name, claim in stack.claims():
        if claim.shared:
            yield Finding(
                "storage-rwx-class-is-there",
                f"{name} is mounted by several nodes, and there is no ReadWriteMany class",
                claim.path or ("storage",),
                None,
                "storage.readWriteMany: {className: ...}",
            )


def claims_fit_capacity(stack: Stack) -> Iterator[Finding]:
    """All claims of a class fit what it holds."""
    storage = stack.environment.storage
    for shared, key, storage_class in (
        (False, "readWriteOnce", storage.read_write_once),
        (True, "readWriteMany", storage.read_write_many),
    ):
        if not storage_class or not storage_class.capacity_gib:
            continue
        claims = [(name, claim.gib) for name, claim in stack.claims() if claim.shared == shared]
        total = sum(gib for _, gib in claims)
        if total > storage_class.capacity_gib:
            largest = ", ".join(f"{name} {gib}" for name, gib in sorted(claims, key=lambda c: -c[1])[:3])
            yield Finding(
                "storage-fits-capacity",
                f"claims of {total} GiB (largest: {largest})",
                ("storage", key, "capacityGiB"),
                str(storage_class.capacity_gib),
                "smaller claims or a larger class",
            )


def shared_class_is_not_local(stack: Stack) -> Iterator[Finding]:
    """The ReadWriteMany class does not keep its data on one node."""
    shared = stack.environment.storage.read_write_many
    if shared and shared.class_name in _LOCAL:
        yield Finding(
            "storage-rwx-class-is-not-local",
            "this class keeps data on one node",
            ("storage", "readWriteMany", "className"),
            repr(shared.class_name),
            "a network file system such as NFS, CephFS, FSx or Filestore",
        )


def quota_holds_a_job(stack: Stack) -> Iterator[Finding]:
    """A namespace's storage quota holds its standing claims and the workspace of one job."""
    tuning = stack.environment.fine_tuning
    for index, namespace in enumerate(tuning.namespaces):
        models = [model for model in stack.environment.models if model.namespace == namespace.name]
        parts = {
            "model cache": tuning.model_cache_gib,
            **({} if tuning.registry_s3 else {"adapter registry": tuning.registry_gib}),
            **{f"cache of {model.name}": model.cache_gib for model in models},
            "one workspace": workspace_gib(stack),
        }
        needed = sum(parts.values())
        if namespace.storage_gib < needed:
            listed = ", ".join(f"{name} {gib}" for name, gib in parts.items())
            yield Finding(
                "storage-quota-holds-a-job",
                f"no job fits in it: {listed} take {needed} GiB",
                ("fineTuning", "namespaces", index, "storageGiB"),
                str(namespace.storage_gib),
                f"{needed} or more",
            )


def workspace_gib(stack: Stack) -> int:
    """The largest default workspace of any runtime."""
    usual = RuntimeDefaults().workspace_size_gib
    sizes = [usual]
    for runtime in stack.environment.fine_tuning.runtimes:
        defaults = runtime.spec.get("defaults")
        asked = defaults.get("workspaceSizeGiB") if isinstance(defaults, dict) else None
        sizes.append(asked if isinstance(asked, int) else usual)
    return max(sizes[1:] or sizes)


def models_fit_their_cache(stack: Stack) -> Iterator[Finding]:
    """Every model cache has room for all that is downloaded: a NIM without `profile` gets several copies of its weights."""
    for path, model, copies, gib in _cached(stack):
        if gib > model.cache_gib:
            several = copies > 1
            yield Finding(
                "model-fits-cache",
                f"its profiles take up to {gib:.0f} GiB ({copies} copies of the weights)"
                if several
                else f"its weights take {gib:.0f} GiB",
                path,
                str(model.cache_gib),
                f"{int(gib * 1.3) + 1}" + (", or `profile`, which is one copy" if several else ""),
            )


def caches_hold_a_rollout(stack: Stack) -> Iterator[Finding]:
    """A model cache has room for the next version too: it is downloaded beside the former one, which nobody deletes."""
    for path, model, _, gib in _cached(stack):
        if gib <= model.cache_gib < 2 * gib:
            yield Finding(
                "model-cache-holds-a-rollout",
                f"a new version is downloaded beside the former {gib:.0f} GiB, and has no room",
                path,
                str(model.cache_gib),
                f"{int(2 * gib) + 1}, or deleting the former files from the claim before each new version",
                Severity.WARNING,
            )


def _cached(stack: Stack) -> Iterator[tuple[tuple[str | int, ...], ServedModel, int, float]]:
    """The key of the cache, the copies of the weights there, and their GiB, of each model whose size is known."""
    for index, model in enumerate(stack.environment.models):
        if architecture := architecture_of(model):
            copies = _downloads(stack, model)
            gib = architecture.parameters_billion * 1e9 * sum(copies) / 1024**3
            yield ("models", index, "cacheGiB"), model, len(copies), gib


def _downloads(stack: Stack, model: ServedModel) -> list[float]:
    """Bytes of each parameter in each copy that is downloaded.

    Profiles of one engine and parallelism differ by precision, and those of TensorRT-LLM by GPU too.
    """
    if engine_of(stack.environment, model) == "vllm" or model.hugging_face or model.profile:
        return [WEIGHT_BYTES[model.weights]]
    products = {nodes.product for nodes in stack.environment.gpus.nodes}
    one = engine_of_nim(model) == "vllm" or profile_gpu(stack, model) is not None
    return [WEIGHT_BYTES[precision] for precision in ("bf16", "fp8")] * (1 if one else max(1, len(products)))


def jobs_of_one_node_at_a_time(stack: Stack) -> Iterator[Finding]:
    """A namespace's caches are ReadWriteMany; otherwise they stay with one node, and jobs on others wait."""
    if stack.environment.fine_tuning.namespaces and not stack.environment.storage.read_write_many:
        nodes = sum(n.nodes for n in stack.environment.gpus.nodes)
        if nodes > 1:
            yield Finding(
                "storage-rwx-for-tuning",
                f"caches are mounted by one node at a time, and there are {nodes} GPU nodes",
                ("storage",),
                None,
                "storage.readWriteMany",
                Severity.WARNING,
            )


CHECKS = (
    shared_claims_have_a_class, claims_fit_capacity, shared_class_is_not_local, quota_holds_a_job,
    models_fit_their_cache, caches_hold_a_rollout, jobs_of_one_node_at_a_time,
)  # fmt: skip
