# SPDX-License-Identifier: Apache-2.0
"""Tuneyard itself: CRDs, operator, and what namespaces of FineTuneJobs need (runtimes, quotas, queues, claims)."""

from tuneyard_api.names import GROUP, JOB_PLURAL, LABEL_STAGE
from tuneyard_api.pod_contract import PROGRESS_PORT, PROGRESS_PORT_NAME

from tuneyard.catalog.gpu_requests import WHOLE_GPU, gpu_quota, gpu_resource
from tuneyard.catalog.objects import build_claim, build_metadata
from tuneyard.catalog.runtimes import (
    CACHE_CLAIM,
    HUB_TOKEN_KEY,
    REGISTRY_CLAIM,
    build_runtime,
    pull_secret,
    registry_secrets,
)
from tuneyard.environment.model import Environment
from tuneyard.environment.tuning import TuningNamespace
from tuneyard.stack.model import Claim, Component, ExpectedSecret, Json, Need, Stack

NAMESPACE = "tuneyard-system"
KUEUE = "kueue.x-k8s.io/v1beta2"
"""The version that Kueue stores since 0.16; what is written in an older one would come back changed."""
DEFAULT_QUEUE = "default"
"""The LocalQueue into which Kueue puts a Job that names none, which `scheduling.queue` of a FineTuneJob may."""


def _operator(stack: Stack) -> Json:
    """charts/tuneyard-operator/values.yaml of this repository. Runtimes are the component `fine-tuning`'s."""
    image = stack.mirrored(stack.environment.registries.operator_image)
    repository, _, digest = image.partition("@")
    named: Json = {"repository": repository, "digest": digest}
    if not digest:
        repository, _, tag = image.rpartition(":")
        named = {"repository": repository, "tag": tag}
    values: Json = {"image": named, "hf": {"enabled": False}}
    if stack.has("metrics"):
        values |= {part: {"enabled": True} for part in ("serviceMonitor", "prometheusRule", "dashboard")}
    if secret := stack.environment.secrets.image_pull:
        values["imagePullSecrets"] = [{"name": secret}]
    return values


def _tuning(stack: Stack) -> list[Json]:
    tuning = stack.environment.fine_tuning
    objects = [build_runtime(stack, runtime) for runtime in tuning.runtimes]
    for namespace in tuning.namespaces:
        objects += _namespace(stack, namespace)
    if tuning.namespaces and stack.has("scheduler"):
        objects += _queues(stack)
    return objects


def _namespace(stack: Stack, namespace: TuningNamespace) -> list[Json]:
    tuning, name = stack.environment.fine_tuning, namespace.name
    shared = stack.environment.storage.read_write_many is not None
    storage_class = stack.storage_class(shared=shared)
    # Where Kueue lends GPUs, Kueue limits a namespace to its share; a quota of that share would refuse lent GPUs.
    lends = stack.has("scheduler") and stack.providers["scheduler"].name == "kueue"
    gpus = sum(entry.gpus for entry in tuning.namespaces) if lends else namespace.gpus
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": build_metadata("fine-tuning", name),
        "spec": {
            "hard": {
                **gpu_quota(stack, gpus),
                "requests.storage": f"{namespace.storage_gib}Gi",
                f"count/{JOB_PLURAL}.{GROUP}": str(namespace.jobs),
            }
        },
    }
    objects = [
        quota,
        build_claim(CACHE_CLAIM, name, tuning.model_cache_gib, storage_class, shared=shared),
    ]
    if tuning.registry_s3 is None:
        objects.append(build_claim(REGISTRY_CLAIM, name, tuning.registry_gib, storage_class, shared=shared))
    if stack.environment.cluster.network_policies:
        objects.append(_network_policy(stack, name))
    if stack.has("metrics"):
        objects.append(_pod_monitor(name))
    return objects


def _pod_monitor(namespace: str) -> Json:
    """Prometheus reads the progress of every stage's pod; each series has the FineTuneJob's name as `finetunejob`."""
    pod_label = "__meta_kubernetes_pod_label_"
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": build_metadata("fine-tuning", namespace),
        "spec": {
            "selector": {"matchExpressions": [{"key": LABEL_STAGE, "operator": "Exists"}]},
            "podMetricsEndpoints": [
                {
                    "port": PROGRESS_PORT_NAME,
                    "path": "/metrics",
                    "relabelings": [
                        {
                            # Of a training on several nodes, the first pod alone reports.
                            "sourceLabels": [f"{pod_label}batch_kubernetes_io_job_completion_index"],
                            "regex": "[1-9].*",
                            "action": "drop",
                        },
                        {
                            "sourceLabels": [f"{pod_label}tuneyard_io_job"],
                            "targetLabel": "finetunejob",
                            "action": "replace",
                        },
                    ],
                }
            ],
        },
    }


def _network_policy(stack: Stack, name: str) -> Json:
    """Network policies: jobs reach each other; operator and Prometheus read progress; served models are open to all."""
    readers = [NAMESPACE]
    if stack.has("metrics"):
        readers.append(stack.providers["metrics"].namespace)
    # The namespace of an existing Prometheus is not known: then every namespace may read progress.
    peers: list[Json] = [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": reader}} if reader else {}}
        for reader in readers
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": build_metadata("fine-tuning", name),
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": {}}]},
                {"from": peers, "ports": [{"port": PROGRESS_PORT, "protocol": "TCP"}]},
                {"ports": [{"port": 8000, "protocol": "TCP"}]},
            ],
        },
    }


def _queues(stack: Stack) -> list[Json]:
    """Kueue's queues. Volcano is there for NeMo Customizer: FineTuneJobs run on the default scheduler and use none of its."""
    tuning = stack.environment.fine_tuning
    if stack.providers["scheduler"].name != "kueue":
        return []
    flavor = {
        "apiVersion": KUEUE,
        "kind": "ResourceFlavor",
        "metadata": build_metadata("gpu"),
    }
    return [flavor, *(entry for namespace in tuning.namespaces for entry in _kueue_queues(stack, namespace))]


def _kueue_queues(stack: Stack, namespace: TuningNamespace) -> list[Json]:
    """A ClusterQueue for each namespace in one cohort, so that idle GPUs are lent, and the LocalQueue that its Jobs get.

    A job of the owner takes lent GPUs back at once: the borrower's pods get SIGTERM, save a checkpoint and go on later.
    """
    gpu = gpu_resource(stack) or WHOLE_GPU
    cluster_queue = {
        "apiVersion": KUEUE,
        "kind": "ClusterQueue",
        "metadata": build_metadata(namespace.name),
        "spec": {
            "cohortName": "fine-tuning",
            "preemption": {"reclaimWithinCohort": "Any"},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
            "resourceGroups": [
                {
                    # Every resource that a pod asks for must be covered; only GPUs are scarce here.
                    "coveredResources": ["cpu", "memory", gpu],
                    "flavors": [
                        {
                            "name": "gpu",
                            "resources": [
                                {"name": "cpu", "nominalQuota": "100k"},
                                {"name": "memory", "nominalQuota": "1Pi"},
                                {"name": gpu, "nominalQuota": str(namespace.gpus)},
                            ],
                        }
                    ],
                }
            ],
        },
    }
    local_queue = {
        "apiVersion": KUEUE,
        "kind": "LocalQueue",
        "metadata": build_metadata(DEFAULT_QUEUE, namespace.name),
        "spec": {"clusterQueue": namespace.name},
    }
    return [cluster_queue, local_queue]


def _needs(environment: Environment) -> list[Need]:
    needs = [Need("crd:finetune", "its FineTuneRuntimes"), Need("finetune", "who carries the jobs through")]
    for index, runtime in enumerate(environment.fine_tuning.runtimes):
        path = ("fineTuning", "runtimes", index)
        if runtime.trained_by == "nemo-customizer":
            needs += [
                Need(capability, f"runtime {runtime.name}", path)
                for capability in ("customizer", "entity-store", "data-store")
            ]
            continue
        if runtime.publish_to == "data-store":
            needs += [
                Need(capability, f"where runtime {runtime.name} publishes", path)
                for capability in ("entity-store", "data-store")
            ]
        if runtime.accelerator == "nvidia":
            needs.append(Need("gpu", f"runtime {runtime.name}", path))
    if environment.fine_tuning.namespaces:
        needs.append(Need("scheduler", "queues of namespaces", ("fineTuning", "namespaces")))
    return needs


def _claims(stack: Stack) -> list[Claim]:
    tuning, shared = stack.environment.fine_tuning, stack.environment.storage.read_write_many is not None
    return [
        Claim(gib, shared, ("fineTuning", "namespaces", index))
        for index, _ in enumerate(tuning.namespaces)
        for gib in (tuning.model_cache_gib, *([] if tuning.registry_s3 else [tuning.registry_gib]))
    ]


def _secrets(stack: Stack) -> list[ExpectedSecret]:
    """The Secrets that pods of jobs read, in each namespace of jobs."""
    names, registries = stack.environment.secrets, stack.environment.registries
    expected: list[ExpectedSecret] = []
    for namespace in stack.environment.fine_tuning.namespaces:
        if not registries.air_gapped or registries.hugging_face:
            purpose = "downloads gated models and data from the Hugging Face hub (optional)"
            expected.append(ExpectedSecret(names.hugging_face, namespace.name, (HUB_TOKEN_KEY,), purpose))
        if names.image_pull:
            expected.append(pull_secret(names.image_pull, namespace.name))
        expected += registry_secrets(stack, namespace.name)
    return expected


COMPONENTS = (
    Component(
        name="tuneyard-crds",
        summary="FineTuneJob and FineTuneRuntime",
        namespace=NAMESPACE,
        provides=("crd:finetune",),
        manifests=True,
        keeps_data=True,
    ),
    Component(
        name="tuneyard-operator",
        summary="Carries FineTuneJobs through",
        namespace=NAMESPACE,
        provides=("finetune",),
        needs=lambda _: (Need("crd:finetune", "the objects that it watches"),),
        after=("metrics", "scheduler"),
        values=_operator,
        secrets=lambda stack: [
            pull_secret(name, NAMESPACE) for name in [stack.environment.secrets.image_pull] if name
        ],
    ),
    Component(
        name="fine-tuning",
        summary="Runtimes, and namespaces made ready for jobs: quotas, queues, claims, network policies",
        namespace=NAMESPACE,
        provides=("fine-tuning",),
        needs=_needs,
        objects=_tuning,
        when=lambda environment: bool(environment.fine_tuning.runtimes or environment.fine_tuning.namespaces),
        claims=_claims,
        secrets=_secrets,
        keeps_data=True,
    ),
)
