# SPDX-License-Identifier: Apache-2.0
"""Checks the requested GPUs against the GPUs that the environment declares."""

import re
from collections.abc import Iterator

from tuneyard.catalog.models import pods_of
from tuneyard.checks.memory import USABLE, architecture_of, estimate, gpu_memory_gib
from tuneyard.environment.model import Environment
from tuneyard.findings import Finding, Severity, did_you_mean
from tuneyard.stack.model import Stack


def slots_per_gpu(environment: Environment) -> int:
    """The number of pods that can share one GPU."""
    gpus = environment.gpus
    return gpus.time_slicing.replicas if gpus.time_slicing else gpus.mig.parts_per_gpu if gpus.mig else 1


def slots(environment: Environment, product: str | None) -> int:
    """GPUs (or their parts) of a product, or of all."""
    nodes = [n for n in environment.gpus.nodes if product in (None, n.product)]
    return slots_per_gpu(environment) * sum(n.nodes * n.gpus_per_node for n in nodes)


def one_way_to_share(stack: Stack) -> Iterator[Finding]:
    """Time slicing and MIG are not both used."""
    if stack.environment.gpus.time_slicing and stack.environment.gpus.mig:
        yield Finding(
            "gpu-one-way-to-share",
            "GPUs can be shared by time or cut into parts, but not both",
            ("gpus", "mig"),
            None,
            "leaving out gpus.timeSlicing or gpus.mig",
        )


def products_are_bare(stack: Stack) -> Iterator[Finding]:
    """GPU products are named without the suffix that sharing adds to the label."""
    for index, nodes in enumerate(stack.environment.gpus.nodes):
        bare = re.sub(r"(-SHARED|-MIG-.*)$", "", nodes.product)
        if bare != nodes.product:
            yield Finding(
                "gpu-product-is-bare",
                "this suffix is added to the label by timeSlicing or mig, which say how GPUs are shared",
                ("gpus", "nodes", index, "product"),
                repr(nodes.product),
                repr(bare),
            )


def parts_are_alike(stack: Stack) -> Iterator[Finding]:
    """With the MIG strategy `single` all parts of a node are alike; else the node offers no GPU (label MIG-INVALID)."""
    mig = stack.environment.gpus.mig
    if mig and mig.strategy == "single" and mig.only_profile is None:
        yield Finding(
            "mig-parts-are-alike",
            "names no profile for all parts, which `strategy: single` requires",
            ("gpus", "mig", "config"),
            repr(mig.config),
            "all-<profile>, such as all-1g.10gb, or profile: 1g.10gb beside it",
        )


def products_are_declared(stack: Stack) -> Iterator[Finding]:
    """Every model asks for a GPU product that some node has."""
    known = {nodes.product for nodes in stack.environment.gpus.nodes}
    for index, model in enumerate(stack.environment.models):
        if model.gpu_product and model.gpu_product not in known:
            yield Finding(
                "gpu-product-is-declared",
                "no node has this GPU",
                ("models", index, "gpuProduct"),
                repr(model.gpu_product),
                did_you_mean(model.gpu_product, known),
            )


def gpus_fit_cluster(stack: Stack) -> Iterator[Finding]:
    """All permanent GPU requests together fit the cluster; further pods would stay Pending for ever. A rollout asks for no more."""
    environment = stack.environment
    requests = [request for _, request in stack.gpu_requests()]
    for product in sorted({request.product for request in requests}, key=str):
        # A pod that names no product can run anywhere, so it is counted against the whole cluster together with all others.
        asked = [request for request in requests if product in (None, request.product)]
        wanted, there = sum(request.gpus for request in asked), slots(environment, product)
        if wanted > there and (product is None or product in {n.product for n in environment.gpus.nodes}):
            what = f"GPUs of {product}" if product else "GPUs"
            yield Finding(
                "gpus-fit-cluster",
                f"models hold {wanted} {what}, the cluster has {there}",
                asked[-1].path,
                str(asked[-1].gpus),
                "fewer replicas or GPUs, or more gpus.nodes",
            )


def pods_fit_nodes(stack: Stack) -> Iterator[Finding]:
    """The GPUs of one pod fit on one node."""
    environment = stack.environment
    for _, request in stack.gpu_requests():
        nodes = [n for n in environment.gpus.nodes if request.product in (None, n.product)]
        most = max((n.gpus_per_node for n in nodes), default=0) * slots_per_gpu(environment)
        if nodes and request.per_pod > most:
            yield Finding(
                "gpu-pod-fits-node",
                f"a node has {most} GPUs",
                request.path,
                str(request.per_pod),
                f"at most {most}, or multiNode",
            )


def models_fit_gpus(stack: Stack) -> Iterator[Finding]:
    """Weights, KV cache and adapters fit in the memory of each GPU."""
    for index, model in enumerate(stack.environment.models):
        path = ("models", index)
        memory, architecture = gpu_memory_gib(stack.environment, model.gpu_product), architecture_of(model)
        if architecture is None:
            yield Finding(
                "model-size-is-known",
                "the memory of this model can't be checked",
                path,
                None,
                "architecture: {parametersBillion, layers, hiddenSize, keyValueHeads}",
                Severity.WARNING,
            )
        elif memory:
            need = estimate(model, architecture)
            usable = memory * USABLE
            if need.total > usable:
                parts = (
                    f"{need.weights:.1f} weights, {need.kv_cache:.1f} KV cache, {need.adapters:.1f} adapters"
                )
                yield Finding(
                    "model-fits-gpu",
                    f"needs about {need.total:.1f} GiB on each GPU ({parts}), "
                    f"{usable:.1f} of {memory} are usable",
                    (*path, "gpus"),
                    str(model.gpus),
                    "more gpus, weights: fp8, a smaller maxSequenceLength or fewer maxSequences",
                )


def time_slices_share_memory(stack: Stack) -> Iterator[Finding]:
    """Time-sliced GPUs serve no models: slices share the memory, and two models on one GPU run out of it."""
    if stack.environment.gpus.time_slicing and stack.environment.models:
        yield Finding(
            "gpu-time-slices-share-memory",
            "slices of a GPU share its memory without any limit",
            ("gpus", "timeSlicing"),
            None,
            "mig, or time slicing for development only",
            Severity.WARNING,
        )


def quotas_leave_a_gpu_for_jobs(stack: Stack) -> Iterator[Finding]:
    """A namespace's GPU quota leaves a GPU for jobs beside the models that are served there, also while they are rolled out."""
    environment = stack.environment
    if not any(runtime.accelerator == "nvidia" for runtime in environment.fine_tuning.runtimes):
        return
    for index, namespace in enumerate(environment.fine_tuning.namespaces):
        models = [model for model in environment.models if model.namespace == namespace.name]
        held = sum(pods_of(model) * model.gpus for model in models)
        if namespace.gpus <= held:
            yield Finding(
                "gpu-quota-holds-a-job",
                f"models that are served in this namespace hold {held} GPUs, so no job gets one",
                ("fineTuning", "namespaces", index, "gpus"),
                str(namespace.gpus),
                f"{held + 1} or more",
            )


def mixed_parts_have_a_profile(stack: Stack) -> Iterator[Finding]:
    """With the MIG strategy `mixed` a profile is named, which pods request."""
    mig = stack.environment.gpus.mig
    if mig is not None and mig.strategy == "mixed" and mig.only_profile is None:
        yield Finding(
            "mig-profile-is-known",
            "with strategy mixed, pods request parts by profile",
            ("gpus", "mig"),
            None,
            "profile: 1g.10gb, as `kubectl describe node` lists it under nvidia.com/mig-",
        )


def quotas_fit_cluster(stack: Stack) -> Iterator[Finding]:
    """A namespace's GPU quota fits the cluster, also beside the served models; else jobs wait for ever."""
    there = slots(stack.environment, None)
    held = sum(request.gpus for _, request in stack.gpu_requests())
    for index, namespace in enumerate(stack.environment.fine_tuning.namespaces):
        path = ("fineTuning", "namespaces", index, "gpus")
        if namespace.gpus > there:
            yield Finding(
                "gpu-quota-fits-cluster",
                f"the cluster has {there} GPUs",
                path,
                str(namespace.gpus),
                f"{there} or fewer",
            )
        elif namespace.gpus > there - held:
            yield Finding(
                "gpu-quota-fits-cluster",
                f"models hold {held} of {there} GPUs: jobs that use the whole quota wait for ever",
                path,
                str(namespace.gpus),
                f"{max(there - held, 0)} or fewer",
                Severity.WARNING,
            )


def customizer_options_fit(stack: Stack) -> Iterator[Finding]:
    """A Customizer option's GPUs are a multiple of tensor * pipeline, and fit nodes and cluster."""
    if not stack.has("customizer"):
        return
    nodes = stack.environment.gpus.nodes
    most, there = max((n.gpus_per_node for n in nodes), default=0), slots(stack.environment, None)
    for i, target in enumerate(stack.environment.fine_tuning.customizer.targets):
        for j, option in enumerate(target.options):
            path = ("fineTuning", "customizer", "targets", i, "options", j)
            total = option.gpus_per_node * option.nodes
            if total % (option.tensor * option.pipeline):
                yield Finding(
                    "customizer-parallelism-divides",
                    f"{total} GPUs do not divide by tensor * pipeline",
                    path,
                    str(option.tensor * option.pipeline),
                    "gpusPerNode * nodes as a multiple of tensor * pipeline",
                )
            if option.gpus_per_node > most or total > there:
                yield Finding(
                    "customizer-fits-cluster",
                    f"the cluster has {there} GPUs, {most} on a node",
                    path,
                    f"{option.nodes} nodes with {option.gpus_per_node} each",
                    "fewer",
                )
            if option.tensor > option.gpus_per_node:
                yield Finding(
                    "customizer-tensor-in-node",
                    "tensor parallelism crosses nodes, which is slow",
                    (*path, "tensor"),
                    str(option.tensor),
                    f"{option.gpus_per_node}, and pipeline for the rest",
                    Severity.WARNING,
                )


CHECKS = (
    one_way_to_share, products_are_bare, parts_are_alike, products_are_declared, gpus_fit_cluster, pods_fit_nodes, models_fit_gpus,
    time_slices_share_memory, quotas_fit_cluster, quotas_leave_a_gpu_for_jobs, mixed_parts_have_a_profile, customizer_options_fit,
)  # fmt: skip
