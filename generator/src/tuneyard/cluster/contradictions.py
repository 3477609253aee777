# SPDX-License-Identifier: Apache-2.0
"""Finds where an environment contradicts the live cluster. Pure."""

from collections.abc import Iterator

from tuneyard_api.problems import Path

from tuneyard.cluster.facts import EXTERNAL_SECRETS, ClusterFacts, GpuNodesFound
from tuneyard.environment.cluster import GpuNodes, Gpus
from tuneyard.findings import Finding, Severity, did_you_mean
from tuneyard.render.applications import application_name
from tuneyard.stack.model import Stack

MEMORY_TOLERANCE = 0.1
"""A card of 80 GB shows 79.6 to 81.6 GiB to its driver."""


def contradictions(stack: Stack, facts: ClusterFacts) -> list[Finding]:
    """Everything in which they differ."""
    return [finding for check in CHECKS for finding in check(stack, facts)]


def kubernetes_is_as_said(stack: Stack, facts: ClusterFacts) -> Iterator[Finding]:
    """The minor version of Kubernetes is the same."""
    said = stack.environment.cluster.kubernetes
    if said != facts.kubernetes:
        yield Finding(
            "live-kubernetes", f"the cluster has {facts.kubernetes}", ("cluster", "kubernetes"), repr(said),
            repr(facts.kubernetes),
        )  # fmt: skip


def gpus_are_as_said(stack: Stack, facts: ClusterFacts) -> Iterator[Finding]:
    """Products, counts and memory of GPUs are the same; a cluster whose GPUs have no labels yet passes."""
    labelled = [found for found in facts.gpus if found.product != "unknown"]
    products = {found.product for found in labelled}
    for index, said in enumerate(stack.environment.gpus.nodes):
        path = ("gpus", "nodes", index)
        same = [found for found in labelled if found.product == said.product]
        if same:
            yield from _unlike(stack.environment.gpus, said, same, path)
        elif labelled:
            hint = did_you_mean(said.product, products)
            yield Finding(
                "live-gpus",
                "no node of the cluster has this GPU",
                (*path, "product"),
                repr(said.product),
                hint,
            )
        elif not facts.gpus:
            yield Finding(
                "live-gpus", "no node of the cluster offers GPUs yet", path, repr(said.product),
                "waiting for the GPU Operator, if it is what brings them", Severity.WARNING,
            )  # fmt: skip
    for product in sorted(products - {said.product for said in stack.environment.gpus.nodes}):
        yield Finding(
            "live-gpus", f"the cluster has GPUs that are not declared: {product}", ("gpus",), None, "gpus.nodes",
            Severity.WARNING,
        )  # fmt: skip


def _unlike(gpus: Gpus, said: GpuNodes, same: list[GpuNodesFound], path: Path) -> Iterator[Finding]:
    """Findings where the nodes with a product differ from the environment."""
    label = gpus.label_of(said.product)
    if others := sorted({f"{found.product}{found.sharing}" for found in same} - {label}):
        # Neither counts nor memory mean the same then.
        yield Finding(
            "live-gpus", f"the cluster labels these GPUs {', '.join(others)}", (*path, "product"), repr(label),
            "timeSlicing or mig as it is there, or waiting for the GPU Operator, if it is what changes them",
            Severity.WARNING,
        )  # fmt: skip
        return
    is_cut = gpus.mig is not None and gpus.mig.strategy == "single"
    parts, memory = (
        (gpus.mig.parts_per_gpu, gpus.mig.memory_gib) if gpus.mig and is_cut else (1, said.memory_gib)
    )
    wanted = said.nodes * said.gpus_per_node * parts
    have = sum(found.nodes * found.gpus_per_node for found in same)
    if have < wanted:
        what = "parts of these GPUs" if is_cut else "of these GPUs"
        yield Finding("live-gpus", f"the cluster has {have} {what}", path, str(wanted), str(have))
    least = min(found.memory_gib for found in same)
    if least and abs(least - memory) > MEMORY_TOLERANCE * memory:
        where = ("gpus", "mig", "memoryGiB") if is_cut else (*path, "memoryGiB")
        what = "parts of these GPUs" if is_cut else "these GPUs"
        yield Finding("live-gpus", f"{what} have {least} GiB", where, str(memory), str(least))


def storage_classes_exist(stack: Stack, facts: ClusterFacts) -> Iterator[Finding]:
    """Every storage class exists; claims of a missing one stay Pending for ever."""
    storage = stack.environment.storage
    for key, chosen in (
        ("readWriteOnce", storage.read_write_once),
        ("readWriteMany", storage.read_write_many),
    ):
        if chosen and chosen.class_name not in facts.storage_classes:
            yield Finding(
                "live-storage-class", "the cluster has no such class", ("storage", key, "className"),
                repr(chosen.class_name), did_you_mean(chosen.class_name, facts.storage_classes),
            )  # fmt: skip


def nothing_is_installed_twice(stack: Stack, facts: ClusterFacts) -> Iterator[Finding]:
    """No component is installed already; two copies of an operator would fight over CRDs and webhooks."""
    for component in stack.components:
        owner = facts.installed.get(component.name)
        if component.is_rendered() and owner not in (
            None,
            application_name(stack.environment, component.name),
        ):
            by = f"by the Application {owner}" if owner else "by other means"
            yield Finding(
                "live-installed-once", f"{component.name} is in the cluster already, {by}",
                ("components", component.name), None,
                f"components.{component.name}.enabled: false, or removing the other", Severity.WARNING,
            )  # fmt: skip


def what_is_taken_for_granted_is_there(stack: Stack, facts: ClusterFacts) -> Iterator[Finding]:
    """Components that the environment calls existing are in the cluster."""
    if stack.component("existing-prometheus") and "kube-prometheus-stack" not in facts.installed:
        yield Finding(
            "live-existing",
            "the cluster has no Prometheus operator",
            ("use", "metrics"),
            None,
            "kube-prometheus-stack",
        )
    if stack.component("existing-gpus") and not facts.gpus:
        yield Finding(
            "live-existing",
            "no node of the cluster offers nvidia.com/gpu",
            ("use", "gpu"),
            None,
            "'device-plugin'",
        )
    if stack.environment.secrets.provider == "external-secrets" and EXTERNAL_SECRETS not in facts.crds:
        yield Finding(
            "live-existing", "the cluster has no External Secrets operator", ("secrets", "provider"),
            "'external-secrets'", "installing it first",
        )  # fmt: skip


def argocd_is_as_said(stack: Stack, facts: ClusterFacts) -> Iterator[Finding]:
    """The version of Argo CD is the same, as the order relies on it."""
    said = stack.environment.argocd.version
    if facts.argocd and facts.argocd != said:
        yield Finding(
            "live-argocd",
            f"the cluster has Argo CD {facts.argocd}",
            ("argocd", "version"),
            repr(said),
            repr(facts.argocd),
        )


CHECKS = (
    kubernetes_is_as_said, gpus_are_as_said, storage_classes_exist, nothing_is_installed_twice,
    what_is_taken_for_granted_is_there, argocd_is_as_said,
)  # fmt: skip
