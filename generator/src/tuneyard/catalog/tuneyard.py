# SPDX-License-Identifier: Apache-2.0
"""Our own half: CRDs, operator, and what makes a namespace ready for FineTuneJobs (runtimes, quotas, queues, claims)."""

from typing import TYPE_CHECKING

from tuneyard_api.names import API_VERSION, GROUP, JOB_PLURAL, RUNTIME_KIND
from tuneyard_api.pod_contract import PROGRESS_PORT

from tuneyard.catalog.component import Claim, Component, Json, Need
from tuneyard.catalog.objects import build_claim, build_metadata, build_tolerations, merged
from tuneyard.environment.model import Environment
from tuneyard.environment.tuning import Runtime, TuningNamespace

if TYPE_CHECKING:
    from tuneyard.stack import Stack

NAMESPACE = "tuneyard-system"
KUEUE = "kueue.x-k8s.io/v1beta2"
"""The version that Kueue stores since 0.16; what is written in an older one would come back changed."""
DEFAULT_QUEUE = "default"
"""The LocalQueue into which Kueue puts a Job that names none; those of FineTuneJobs name none."""
REGISTRY_CLAIM, CACHE_CLAIM = "adapters", "model-cache"


def _operator(stack: "Stack") -> Json:
    """charts/tuneyard-operator/values.yaml of this repository. Runtimes are the component `fine-tuning`'s."""
    image = stack.mirrored(stack.environment.registries.operator_image)
    repository, _, digest = image.partition("@")
    if digest:
        return {"image": {"repository": repository, "digest": digest}, "hf": {"enabled": False}}
    repository, _, tag = image.rpartition(":")
    return {"image": {"repository": repository, "tag": tag}, "hf": {"enabled": False}}


def _tuning(stack: "Stack") -> list[Json]:
    tuning = stack.environment.fine_tuning
    objects = [build_runtime(stack, runtime) for runtime in tuning.runtimes]
    for namespace in tuning.namespaces:
        objects += _namespace(stack, namespace)
    if tuning.namespaces and stack.has("scheduler"):
        objects += _queues(stack)
    return objects


def build_runtime(stack: "Stack", runtime: Runtime) -> Json:
    """FineTuneRuntime; fields: tuneyard_api.runtime."""
    environment = stack.environment
    defaults: Json = {"storageClassName": stack.storage_class(), "registry": {"claimName": REGISTRY_CLAIM}}
    if runtime.endpoint and stack.has(f"model:{runtime.endpoint}"):
        defaults["endpoint"] = stack.url(f"model:{runtime.endpoint}")
    spec: Json = {
        "image": runtime.image or stack.mirrored(environment.registries.trainer_image),
        "accelerator": runtime.accelerator,
        "methods": list(runtime.methods),
        "modelCache": CACHE_CLAIM,
        "defaults": defaults,
    }
    if runtime.accelerator == "nvidia":
        spec["tolerations"] = build_tolerations(environment.gpus.taints())
    spec = merged(spec, dict(runtime.spec))
    if isinstance(tolerations := spec.get("tolerations"), list):
        # The API server fills this in, and Argo CD compares lists as a whole.
        spec["tolerations"] = [
            {**entry, "operator": entry.get("operator", "Equal")} if isinstance(entry, dict) else entry
            for entry in tolerations
        ]
    return {
        "apiVersion": API_VERSION,
        "kind": RUNTIME_KIND,
        "metadata": build_metadata(runtime.name),
        "spec": spec,
    }


def _namespace(stack: "Stack", namespace: TuningNamespace) -> list[Json]:
    tuning, name = stack.environment.fine_tuning, namespace.name
    shared = stack.environment.storage.read_write_many is not None
    storage_class = stack.storage_class(shared=shared)
    # Where Kueue lends, it is what holds a namespace to its share; a quota of that share would refuse what is lent.
    lends = stack.has("scheduler") and stack.providers["scheduler"].name == "kueue"
    gpus = sum(entry.gpus for entry in tuning.namespaces) if lends else namespace.gpus
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": build_metadata("fine-tuning", name),
        "spec": {
            "hard": {
                "requests.nvidia.com/gpu": str(gpus),
                "requests.storage": f"{namespace.storage_gib}Gi",
                f"count/{JOB_PLURAL}.{GROUP}": str(namespace.jobs),
            }
        },
    }
    objects = [
        quota,
        build_claim(CACHE_CLAIM, name, tuning.model_cache_gib, storage_class, shared=shared),
        build_claim(REGISTRY_CLAIM, name, tuning.registry_gib, storage_class, shared=shared),
    ]
    if stack.environment.cluster.network_policies:
        objects.append(_network_policy(stack, name))
    return objects


def _network_policy(stack: "Stack", name: str) -> Json:
    """Jobs talk among themselves; the operator and Prometheus read progress; served models answer everybody."""
    readers = [NAMESPACE, *(["observability"] if stack.has("metrics") else [])]
    peers = [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": reader}}} for reader in readers
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


def _queues(stack: "Stack") -> list[Json]:
    tuning, scheduler = stack.environment.fine_tuning, stack.providers["scheduler"].name
    if scheduler == "kube-scheduler":
        return []
    if scheduler == "volcano":
        return [
            {
                "apiVersion": "scheduling.volcano.sh/v1beta1",
                "kind": "Queue",
                "metadata": build_metadata(namespace.name),
                "spec": {
                    "weight": 1,
                    "reclaimable": True,
                    "capability": {"nvidia.com/gpu": str(namespace.gpus)},
                },
            }
            for namespace in tuning.namespaces
        ]
    flavor = {
        "apiVersion": KUEUE,
        "kind": "ResourceFlavor",
        "metadata": build_metadata("gpu"),
    }
    return [flavor, *(entry for namespace in tuning.namespaces for entry in _kueue_queues(namespace))]


def _kueue_queues(namespace: TuningNamespace) -> list[Json]:
    """A ClusterQueue for each namespace in one cohort, so that idle GPUs are lent, and the LocalQueue that its Jobs get.

    A job of the owner takes lent GPUs back at once: the borrower's pods get SIGTERM, save a checkpoint and go on later.
    """
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
                    "coveredResources": ["cpu", "memory", "nvidia.com/gpu"],
                    "flavors": [
                        {
                            "name": "gpu",
                            "resources": [
                                {"name": "cpu", "nominalQuota": "100k"},
                                {"name": "memory", "nominalQuota": "1Pi"},
                                {"name": "nvidia.com/gpu", "nominalQuota": str(namespace.gpus)},
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
        if runtime.accelerator == "nvidia":
            needs.append(Need("gpu", f"runtime {runtime.name}", path))
    if environment.fine_tuning.namespaces:
        needs.append(Need("scheduler", "queues of namespaces", ("fineTuning", "namespaces")))
    return needs


def _claims(stack: "Stack") -> list[Claim]:
    tuning, shared = stack.environment.fine_tuning, stack.environment.storage.read_write_many is not None
    return [
        Claim(gib, shared, ("fineTuning", "namespaces", index))
        for index, _ in enumerate(tuning.namespaces)
        for gib in (tuning.model_cache_gib, tuning.registry_gib)
    ]


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
        keeps_data=True,
    ),
)
