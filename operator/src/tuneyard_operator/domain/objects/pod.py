# SPDX-License-Identifier: Apache-2.0
"""The pod of a stage, by the pod contract and under the restricted pod security profile."""

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from tuneyard_api import names
from tuneyard_api import pod_contract as contract
from tuneyard_api.data_stores import ENV_DATA_STORE_TOKEN, ENV_SOURCE_STORE_TOKEN
from tuneyard_api.job import Resources, Toleration
from tuneyard_api.pod_contract import Stage
from tuneyard_api.pod_security import CONTAINER_SECURITY, POD_SECURITY
from tuneyard_api.quantities import quantity_value

from tuneyard_operator.domain.frozen import Frozen
from tuneyard_operator.domain.objects.metadata import Owner, stage_labels

MASTER_PORT = 29500
_STORE_TOKENS = (ENV_SOURCE_STORE_TOKEN, ENV_DATA_STORE_TOKEN)
_RANK = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
_GPUS = "gpus"
"""Name of a training pod's resource claim."""
_SHM_SHARE = 4
"""Shared memory may use 1/4 of the memory limit, and counts against it."""


def build_pod_spec(owner: Owner, frozen: Frozen, stage: Stage, attempt: int) -> dict[str, Any]:
    """Spec of the pod template."""
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": contract.GRACE_SECONDS[stage],
        "securityContext": POD_SECURITY,
        "containers": [_trainer(owner, frozen, stage, attempt)],
        "volumes": _volumes(owner, frozen, stage),
    }
    if stage is Stage.TRAIN and frozen.runtime.device_class_name is not None:
        spec["resourceClaims"] = [
            {"name": _GPUS, "resourceClaimTemplateName": names.gpu_claim_name(owner.name)}
        ]
    if frozen.runtime.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in frozen.runtime.image_pull_secrets]
    if stage is Stage.TRAIN:
        spec |= _placement(frozen)
    if stage is Stage.TRAIN and frozen.plan.resolved.nodes > 1:
        spec["subdomain"] = names.stage_job_name(owner.name, stage, attempt)
        spec["affinity"] = _apart(owner, stage, attempt)
    return spec


def memory_limit(frozen: Frozen, stage: Stage) -> str:
    """Memory request and limit of a stage, as a Kubernetes quantity."""
    asked = frozen.spec.resources.memory_gib
    if stage is Stage.TRAIN and asked is not None:
        return f"{_rounded_up(asked, 1024)}Mi"
    own = frozen.runtime.train_resources if stage is Stage.TRAIN else frozen.runtime.prepare_resources
    return own.memory


def _trainer(owner: Owner, frozen: Frozen, stage: Stage, attempt: int) -> dict[str, Any]:
    return {
        "name": contract.CONTAINER,
        "image": frozen.runtime.image,
        "imagePullPolicy": frozen.runtime.image_pull_policy,
        "command": [*contract.COMMAND, stage.value],
        "env": _environment(owner, frozen, stage, attempt),
        "ports": [{"name": contract.PROGRESS_PORT_NAME, "containerPort": contract.PROGRESS_PORT}],
        "resources": _resources(frozen, stage),
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePath": contract.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(frozen, stage),
    }


def _environment(owner: Owner, frozen: Frozen, stage: Stage, attempt: int) -> list[dict[str, Any]]:
    """The contract's variables; the runtime's own may add to them but not change them."""
    env: dict[str, Any] = {"HOME": {"value": "/tmp"}}  # noqa: S108  an emptyDir of the pod, not a shared folder
    if frozen.runtime.ca_bundle is not None:
        env |= {name: {"value": contract.CA_FILE} for name in contract.CA_VARIABLES}
    env |= {variable.name: {"value": variable.value} for variable in frozen.runtime.env}
    env |= {
        contract.ENV_JOB_FILE: {"value": contract.JOB_FILE},
        contract.ENV_WORKSPACE: {"value": contract.WORKSPACE_DIR},
        contract.ENV_ATTEMPT: {"value": str(attempt)},
        contract.ENV_TERMINATION_LOG: {"value": contract.TERMINATION_LOG},
        contract.ENV_PORT: {"value": str(contract.PROGRESS_PORT)},
    }
    for name in (contract.ENV_HUB_TOKEN, *_STORE_TOKENS, *contract.ENV_S3):
        env.pop(name, None)
    env |= _credentials(frozen, stage)
    if stage is Stage.TRAIN and frozen.plan.resolved.nodes > 1:
        env |= _rendezvous(owner, frozen, attempt)
    return [{"name": name, **value} for name, value in env.items()]


def _credentials(frozen: Frozen, stage: Stage) -> dict[str, Any]:
    """Environment variables with the credentials of prepare for its sources, or of publish for its registry."""
    keys: dict[str, dict[str, Any]] = {}
    plan = frozen.plan
    secret = {Stage.PREPARE: plan.s3_secret, Stage.PUBLISH: plan.registry_secret}.get(stage)
    token = plan.hub_token if stage is Stage.PREPARE else None
    if token is not None:
        keys[contract.ENV_HUB_TOKEN] = {"name": token.name, "key": token.key}
        if frozen.plan.hub_token_is_optional:
            keys[contract.ENV_HUB_TOKEN]["optional"] = True
    reads = plan.source_token if stage is Stage.PREPARE else None
    writes = {Stage.PREPARE: plan.upload_token, Stage.PUBLISH: plan.registry_token}.get(stage)
    for variable, chosen in zip(_STORE_TOKENS, (reads, writes), strict=True):
        if chosen is not None:
            keys[variable] = {"name": chosen.name, "key": chosen.key}
    if secret is not None:
        keys |= {name: {"name": secret, "key": name} for name in contract.ENV_S3}
        # Only temporary credentials have a session token.
        keys[contract.ENV_S3[-1]]["optional"] = True
    return {name: {"valueFrom": {"secretKeyRef": key}} for name, key in keys.items()}


def _rendezvous(owner: Owner, frozen: Frozen, attempt: int) -> dict[str, Any]:
    """Torchrun's variables: rank by completion index, index 0 is the master, found through the headless Service."""
    job = names.stage_job_name(owner.name, Stage.TRAIN, attempt)
    return {
        "PET_NNODES": {"value": str(frozen.plan.resolved.nodes)},
        "PET_NPROC_PER_NODE": {"value": str(frozen.plan.resolved.gpus_per_node)},
        "PET_NODE_RANK": {"valueFrom": {"fieldRef": {"fieldPath": _RANK}}},
        "PET_MASTER_ADDR": {"value": f"{job}-0.{job}"},
        "PET_MASTER_PORT": {"value": str(MASTER_PORT)},
    }


def _rounded_up(count: float, parts: int) -> int:
    """A fraction of a quantity, rounded up as Kubernetes does, so that it is never zero."""
    return math.ceil(Decimal(str(count)) * parts)


def _resources(frozen: Frozen, stage: Stage) -> dict[str, Any]:
    memory = memory_limit(frozen, stage)
    own = frozen.runtime.train_resources if stage is Stage.TRAIN else frozen.runtime.prepare_resources
    wishes = frozen.spec.resources if stage is Stage.TRAIN else Resources()
    requests, limits = {"cpu": own.cpu, "memory": memory}, {"memory": memory}
    if wishes.cpu_cores is not None:
        requests["cpu"] = f"{_rounded_up(wishes.cpu_cores, 1000)}m"
    if wishes.cpu_limit_cores is not None:
        limits["cpu"] = f"{_rounded_up(wishes.cpu_limit_cores, 1000)}m"
    elif own.cpu_limit is not None:
        limits["cpu"] = own.cpu_limit
    gpu = frozen.runtime.accelerator_resource
    if stage is Stage.TRAIN and gpu is not None:
        count = str(frozen.plan.resolved.gpus_per_node)
        requests, limits = {**requests, gpu: count}, {**limits, gpu: count}
    claims = stage is Stage.TRAIN and frozen.runtime.device_class_name is not None
    return {"requests": requests, "limits": limits} | ({"claims": [{"name": _GPUS}]} if claims else {})


def _placement(frozen: Frozen) -> dict[str, Any]:
    """Where the training pod may run: the runtime's rules with the job's added."""
    runtime, wishes = frozen.runtime, frozen.spec.scheduling
    placement: dict[str, Any] = {}
    selector = {**(runtime.node_selector or {}), **(wishes.node_selector or {})}
    if wishes.gpu_product is not None:
        selector[names.GPU_PRODUCT_LABEL] = wishes.gpu_product
    if selector:
        placement["nodeSelector"] = dict(sorted(selector.items()))
    tolerations = [*runtime.tolerations, *(wishes.tolerations or ())]
    if tolerations:
        placement["tolerations"] = list(_tolerations(tolerations))
    if runtime.runtime_class_name is not None:
        placement["runtimeClassName"] = runtime.runtime_class_name
    if wishes.priority_class_name is not None:
        placement["priorityClassName"] = wishes.priority_class_name
    return placement


def _apart(owner: Owner, stage: Stage, attempt: int) -> dict[str, Any]:
    """The rule that puts each pod of an attempt on its own node, even if one node has room for two."""
    labels = stage_labels(owner, stage, attempt)
    chosen = {label: labels[label] for label in (names.LABEL_JOB, names.LABEL_STAGE, names.LABEL_ATTEMPT)}
    term = {"labelSelector": {"matchLabels": chosen}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _tolerations(tolerations: Iterable[Toleration]) -> Iterable[dict[str, Any]]:
    for toleration in tolerations:
        yield toleration.model_dump(by_alias=True, exclude_none=True)


def _claims(frozen: Frozen, stage: Stage) -> dict[str, str]:
    """Volume name of every claim of a stage; a claim that appears at several paths is one volume."""
    claims = dict.fromkeys(mount.claim for mount in frozen.plan.stage_mounts(stage))
    return {claim: f"claim-{place}" for place, claim in enumerate(claims)}


def _volumes(owner: Owner, frozen: Frozen, stage: Stage) -> list[dict[str, Any]]:
    written = {mount.claim for mount in frozen.plan.stage_mounts(stage) if not mount.read_only}
    shared = int(quantity_value(memory_limit(frozen, stage))) // _SHM_SHARE // 2**20
    job_file = contract.JOB_FILE.rsplit("/", 1)[1]
    volumes: list[dict[str, Any]] = [
        {
            "name": names.PLAN_VOLUME,
            "configMap": {
                "name": names.plan_name(owner.name, owner.uid),
                "items": [{"key": job_file, "path": job_file}],
            },
        },
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{max(shared, 1)}Mi"}},
    ]
    if authority := frozen.runtime.ca_bundle:
        items = [{"key": authority.key, "path": contract.CA_FILE.rpartition("/")[2]}]
        volumes.append({"name": "ca", "configMap": {"name": authority.config_map_name, "items": items}})
    for claim, volume in _claims(frozen, stage).items():
        source: dict[str, Any] = {"claimName": claim}
        if claim not in written:
            source["readOnly"] = True
        volumes.append({"name": volume, "persistentVolumeClaim": source})
    return volumes


def _mounts(frozen: Frozen, stage: Stage) -> list[dict[str, Any]]:
    claims = _claims(frozen, stage)
    mounts: list[dict[str, Any]] = [
        {"name": "job", "mountPath": contract.JOB_DIR, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  an emptyDir of the pod, not a shared folder
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108  the same
    ]
    if frozen.runtime.ca_bundle is not None:
        mounts.append({"name": "ca", "mountPath": contract.CA_FOLDER, "readOnly": True})
    for mount in frozen.plan.stage_mounts(stage):
        read_only = {"readOnly": True} if mount.read_only else {}
        mounts.append({"name": claims[mount.claim], "mountPath": mount.path, **read_only})
    return mounts
