# SPDX-License-Identifier: Apache-2.0
"""Storage: capacity by class, and ReadWriteMany where several nodes mount."""

from collections.abc import Iterator

from tuneyard.checks.memory import WEIGHT_BYTES, architecture_of
from tuneyard.findings import Finding, Severity
from tuneyard.stack.model import Stack

_LOCAL = ("local-path", "hostpath", "standard", "local-storage")


def shared_claims_have_a_class(stack: Stack) -> Iterator[Finding]:
    """What several nodes mount needs ReadWriteMany."""
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
    """Classes that keep data on one node can't be ReadWriteMany."""
    shared = stack.environment.storage.read_write_many
    if shared and shared.class_name in _LOCAL:
        yield Finding(
            "storage-rwx-class-is-not-local",
            "this class keeps data on one node",
            ("storage", "readWriteMany", "className"),
            repr(shared.class_name),
            "a network file system such as NFS, CephFS, FSx or Filestore",
        )


def quota_holds_its_claims(stack: Stack) -> Iterator[Finding]:
    """A namespace's storage quota leaves room for its own caches."""
    tuning = stack.environment.fine_tuning
    fixed = tuning.model_cache_gib + tuning.registry_gib
    for index, namespace in enumerate(tuning.namespaces):
        if namespace.storage_gib <= fixed:
            yield Finding(
                "storage-quota-holds-claims",
                f"model cache and adapter registry take {fixed} GiB of it",
                ("fineTuning", "namespaces", index, "storageGiB"),
                str(namespace.storage_gib),
                f"more than {fixed}",
            )


def models_fit_their_cache(stack: Stack) -> Iterator[Finding]:
    """A model cache holds the weights."""
    for index, model in enumerate(stack.environment.models):
        if architecture := architecture_of(model):
            gib = architecture.parameters_billion * 1e9 * WEIGHT_BYTES[model.weights] / 1024**3
            if gib > model.cache_gib:
                yield Finding(
                    "model-fits-cache",
                    f"its weights take {gib:.0f} GiB",
                    ("models", index, "cacheGiB"),
                    str(model.cache_gib),
                    f"{int(gib * 1.3) + 1}",
                )


def jobs_of_one_node_at_a_time(stack: Stack) -> Iterator[Finding]:
    """Without ReadWriteMany a namespace's caches follow one node, and jobs on others wait."""
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
    shared_claims_have_a_class, claims_fit_capacity, shared_class_is_not_local, quota_holds_its_claims,
    models_fit_their_cache, jobs_of_one_node_at_a_time,
)  # fmt: skip
