# SPDX-License-Identifier: Apache-2.0
"""Kubernetes objects that more than one component builds, as plain data."""

from typing import Any

from tuneyard_api.names import LABEL_MANAGED_BY

from tuneyard.environment.taints import build_toleration

KEPT = {
    "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
    "argocd.argoproj.io/compare-options": "IgnoreExtraneous",
}
"""Annotations of what holds data: neither a prune nor a teardown deletes it. When it is not rendered any more, its
Application is Synced all the same: otherwise what is kept would hold up every later wave for ever."""

Json = dict[str, Any]


def build_metadata(
    name: str, namespace: str | None = None, *, labels: Json | None = None, keep: bool = False
) -> Json:
    """Metadata with our labels; `keep` marks what holds data."""
    metadata: Json = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    metadata["labels"] = {**(labels or {}), LABEL_MANAGED_BY: "tuneyard"}
    if keep:
        metadata["annotations"] = dict(KEPT)
    return metadata


def build_config_map(name: str, namespace: str, data: dict[str, str]) -> Json:
    """A ConfigMap of texts."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": build_metadata(name, namespace),
        "data": data,
    }


def build_claim(name: str, namespace: str, gib: int, storage_class: str, *, shared: bool) -> Json:
    """A PersistentVolumeClaim that outlives its Application.

    Its health is not judged: a class that waits for the first consumer leaves it Pending until a job comes, and every
    later wave would wait with it.
    """
    metadata = build_metadata(name, namespace, keep=True)
    metadata["annotations"] |= {"argocd.argoproj.io/ignore-healthcheck": "true"}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": {
            "accessModes": ["ReadWriteMany" if shared else "ReadWriteOnce"],
            "resources": {"requests": {"storage": f"{gib}Gi"}},
            "storageClassName": storage_class,
        },
    }


def build_tolerations(taints: tuple[str, ...]) -> list[Json]:
    """Tolerations of GPU nodes: NVIDIA's taint and the environment's own, as `gpus.nodes[].tolerations` has them."""
    return [build_toleration(taint) for taint in dict.fromkeys(("nvidia.com/gpu", *taints))]


def merged(base: Any, over: Any) -> Any:
    """`over` laid over `base`: mappings merge, everything else is replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}
    return over


def without_empty(value: Any) -> Any:
    """The value without nulls, empty strings, maps and lists: NVIDIA's operators drop them, which would look like drift."""
    if isinstance(value, dict):
        kept = {key: without_empty(child) for key, child in value.items()}
        return {key: child for key, child in kept.items() if child is not None and child not in ("", {}, [])}
    if isinstance(value, (list, tuple)):
        return [without_empty(child) for child in value]
    return value
