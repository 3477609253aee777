# SPDX-License-Identifier: Apache-2.0
"""What is carried: so many FineTuneJobs, and for each the very objects that the operator makes of it."""

from dataclasses import dataclass
from typing import Any

from tuneyard_api import names
from tuneyard_api.job import FineTuneJob
from tuneyard_api.planner import make_plan
from tuneyard_api.pod_contract import Stage
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_operator.domain.frozen import Frozen
from tuneyard_operator.domain.objects.metadata import Owner
from tuneyard_operator.domain.objects.stage_job import build_stage_job
from tuneyard_operator.domain.objects.storage import build_plan_map, build_workspace

Object = dict[str, Any]

NAMESPACE = "bench"
PREFIX = "job-"
STORAGE_CLASS = "bench"
REGISTRY_CLAIM = "adapters"
_UID = "00000000-0000-4000-8000-000000000000"
"""Stands for the uid of a FineTuneJob where there is none: job.json is as long as it would be."""
_VOLUME: Object = {"accessModes": ["ReadWriteOnce"], "storageClassName": STORAGE_CLASS}
_RUNTIME_SPEC: Object = {
    "image": "registry.example.com/tuneyard/trainer:0.1.0",
    "accelerator": "nvidia",
    "methods": ["lora"],
    "defaults": {
        "workspaceSizeGiB": 1,
        "storageClassName": STORAGE_CLASS,
        "registry": {"claimName": REGISTRY_CLAIM},
    },
}


def job_names(count: int) -> list[str]:
    """`job-0`, `job-1`, ..."""
    return [f"{PREFIX}{number}" for number in range(count)]


def build_job(name: str, endpoint: str | None) -> Object:
    """A ten-line FineTuneJob; with an endpoint, one that has to be served there."""
    spec: Object = {
        "model": {"huggingFace": {"repo": "example/llama"}},
        "dataset": {"training": {"huggingFace": {"repo": "example/questions", "path": "train.jsonl"}}},
        "method": "lora",
        "runtime": {"name": NAMESPACE},
    }
    if endpoint is not None:
        spec["serve"] = {"endpoint": endpoint}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.JOB_KIND,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


def build_namespace() -> Object:
    """The namespace of all jobs."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def build_runtime() -> Object:
    """The FineTuneRuntime of all jobs."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.RUNTIME_KIND,
        "metadata": {"name": NAMESPACE},
        "spec": _RUNTIME_SPEC,
    }


def build_claim(name: str) -> Object:
    """A claim like those of the jobs."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {**_VOLUME, "resources": {"requests": {"storage": "1Gi"}}},
    }


def build_volume(claim: str) -> Object:
    """The volume that waits for a claim; it has the claim's name."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": claim},
        "spec": {**_VOLUME, "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/nonexistent"}},
    }


def build_binding_policy() -> list[Object]:
    """Binds each claim to its volume as it is created, in the place of provisioner and binder.

    The controller manager binds one claim after the other, in five requests each. In a burst every pod would wait
    for that, and what is to be compared would be hidden behind it.
    """
    bound = (
        'Object{metadata: Object.metadata{annotations: {"pv.kubernetes.io/bind-completed": "yes"}}, '
        "spec: Object.spec{volumeName: object.metadata.name}}"
    )
    claims = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["persistentvolumeclaims"],
    }
    group, metadata = "admissionregistration.k8s.io/v1", {"name": "bound-at-once"}
    policy = {
        "apiVersion": group,
        "kind": "MutatingAdmissionPolicy",
        "metadata": metadata,
        "spec": {
            "matchConstraints": {"resourceRules": [claims]},
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": bound}}],
        },
    }
    binding = {
        "apiVersion": group,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": metadata,
        "spec": {"policyName": "bound-at-once"},
    }
    return [policy, binding]


@dataclass(frozen=True)
class Chain:
    """What one FineTuneJob becomes, as the operator's own builders make it, but with no owner."""

    digest: str
    storage: tuple[Object, Object]
    """The plan's ConfigMap and the workspace's claim."""
    jobs: tuple[Object, ...]
    """The Jobs of the stages, in order."""


def build_chain(name: str) -> Chain:
    """The objects of a job without an endpoint."""
    document = build_job(name, None)
    metadata = {**document["metadata"], "uid": _UID}
    job = FineTuneJob.model_validate({"metadata": metadata, "spec": document["spec"]})
    runtime = FineTuneRuntime.model_validate({"metadata": {"name": NAMESPACE}, "spec": _RUNTIME_SPEC})
    frozen = Frozen(plan=make_plan(job, runtime), runtime=runtime.spec, spec=job.spec)
    owner = Owner(NAMESPACE, name, _UID)
    return Chain(
        digest=frozen.plan.digest,
        storage=(_orphan(build_plan_map(owner, frozen)), _orphan(build_workspace(owner, frozen))),
        jobs=tuple(_orphan(build_stage_job(owner, frozen, stage, 1)) for stage in Stage),
    )


def _orphan(body: Object) -> Object:
    """The object without its owner, which does not exist here: the garbage collector would take the object away."""
    metadata = {key: value for key, value in body["metadata"].items() if key != "ownerReferences"}
    return {**body, "metadata": metadata}
