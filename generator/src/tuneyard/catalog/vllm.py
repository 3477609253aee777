# SPDX-License-Identifier: Apache-2.0
"""vLLM instead of NIM: a Deployment, a Service and the claim for the weights. It needs no NVIDIA account.

Flags: https://docs.vllm.ai/en/stable/cli/serve/; adapters: https://docs.vllm.ai/en/stable/features/lora.html. `adapter-sync`
beside it loads them, and nobody else can (`inference_only`).
"""

from tuneyard_api.names import LABEL_APP
from tuneyard_api.pod_contract import CA_FILE, CA_FOLDER, CA_VARIABLES

from tuneyard.catalog.adapter_sync import (
    ADAPTERS,
    MIDDLEWARE,
    MODULES,
    adapter_volumes,
    build_adapter_sync,
    build_middleware_map,
    middleware_map_name,
)
from tuneyard.catalog.gpu_requests import (
    build_claim_template,
    gpu_resource,
    gpu_resources,
    node_selector_of,
    tolerations_of,
)
from tuneyard.catalog.objects import build_metadata, without_empty
from tuneyard.catalog.runtimes import (
    HUB_TOKEN_KEY,
    build_ca_bundle,
    build_download_settings,
    hub_token,
    pull_secret,
    registry_secrets,
)
from tuneyard.catalog.served_models import reads_registry
from tuneyard.catalog.weights import build_weights_claim, weights_claim
from tuneyard.environment.models import ServedModel
from tuneyard.stack.model import ExpectedSecret, Json, Stack

PORT = 8000
CACHE = "/cache"
_ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


def build_vllm(stack: Stack, model: ServedModel, *, shared: bool) -> list[Json]:
    """Claim, Deployment, Service, and a ServiceMonitor when something reads it."""
    labels = {LABEL_APP: model.name}
    claim = build_weights_claim(stack, model, shared=shared)
    service: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": build_metadata(model.name, model.namespace, labels=labels),
        "spec": {"selector": labels, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]},
    }
    objects = [claim, _deployment(stack, model, labels, shared=shared), service]
    if model.lora:
        objects.append(build_middleware_map(model))
    if gpu_resource(stack) is None:
        objects.append(build_claim_template(model.name, model.namespace, model.gpus))
    if stack.has("metrics"):
        objects.append(
            {
                "apiVersion": "monitoring.coreos.com/v1",
                "kind": "ServiceMonitor",
                "metadata": build_metadata(model.name, model.namespace),
                "spec": {
                    "selector": {"matchLabels": labels},
                    "endpoints": [{"port": "http", "path": "/metrics"}],
                },
            }
        )
    return objects


def _arguments(model: ServedModel) -> list[str]:
    source = model.hugging_face
    arguments = [
        source.repo if source else "",
        f"--revision={source.revision if source else ''}",
        f"--served-model-name={model.name}",
        f"--max-model-len={model.max_sequence_length}",
        f"--max-num-seqs={max(model.max_sequences, 8)}",
        f"--tensor-parallel-size={model.gpus}",
    ]
    if model.weights == "fp8":
        arguments.append("--quantization=fp8")
    if lora := model.lora:
        arguments += [
            "--enable-lora",
            f"--max-loras={lora.max_gpu_adapters}",
            f"--max-cpu-loras={lora.max_cpu_adapters}",
            f"--max-lora-rank={lora.max_rank}",
            f"--middleware={MIDDLEWARE}",
        ]
    return arguments


def _environment_variables(stack: Stack, model: ServedModel) -> list[Json]:
    token = {**hub_token(stack), "optional": True}
    # The image has no user of this id, so libraries that look up a name or a home folder get them from here.
    values = {
        "HOME": CACHE,
        "USER": "vllm",
        "HF_HOME": f"{CACHE}/huggingface",
        "VLLM_CACHE_ROOT": f"{CACHE}/vllm",
        "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/inductor",
    }
    if model.lora:
        values |= {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "true", "PYTHONPATH": MODULES}
    values |= {entry["name"]: entry["value"] for entry in build_download_settings(stack)}
    if build_ca_bundle(stack):
        values |= dict.fromkeys(CA_VARIABLES, CA_FILE)
    values |= {entry.name: entry.value for entry in model.env}
    variables: list[Json] = [{"name": name, "value": value} for name, value in values.items()]
    if "HF_HUB_OFFLINE" in values:
        return variables
    return [*variables, {"name": HUB_TOKEN_KEY, "valueFrom": {"secretKeyRef": token}}]


def _deployment(stack: Stack, model: ServedModel, labels: Json, *, shared: bool) -> Json:
    volumes: list[Json] = [
        {"name": "cache", "persistentVolumeClaim": {"claimName": weights_claim(model)}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    mounts: list[Json] = [
        {"name": "cache", "mountPath": CACHE},
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108  a path in the pod
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  a path in the pod
    ]
    if model.lora:
        volumes.append({"name": "python", "configMap": {"name": middleware_map_name(model)}})
        mounts.append({"name": "python", "mountPath": MODULES, "readOnly": True})
    if reads_registry(stack, model):
        volumes += adapter_volumes(stack)
        mounts.append({"name": "adapters", "mountPath": ADAPTERS, "readOnly": True})
    if authority := build_ca_bundle(stack):
        items = [{"key": authority["key"], "path": "ca.crt"}]
        volumes.append({"name": "ca", "configMap": {"name": authority["configMapName"], "items": items}})
        mounts.append({"name": "ca", "mountPath": CA_FOLDER, "readOnly": True})
    gpus = gpu_resources(stack, model.gpus)
    image = (
        f"{model.image.repository}:{model.image.tag}" if model.image else stack.pin("vllm").images["server"]
    )
    health = {"path": "/health", "port": "http"}
    container = {
        "name": "vllm",
        "image": stack.mirrored(image),
        "command": ["vllm", "serve"],
        "args": _arguments(model),
        "env": _environment_variables(stack, model),
        "ports": [{"name": "http", "containerPort": PORT}],
        # A download and a compilation may take an hour.
        "startupProbe": {"httpGet": health, "periodSeconds": 10, "failureThreshold": 360},
        "readinessProbe": {"httpGet": health, "periodSeconds": 10},
        "livenessProbe": {"httpGet": health, "periodSeconds": 30, "failureThreshold": 4},
        "resources": {
            "requests": {"cpu": "4", "memory": "16Gi", **gpus},
            "limits": gpus,
            "claims": [] if gpus else [{"name": "gpus"}],
        },
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
    }
    container["resources"] = without_empty(container["resources"])
    pull = stack.environment.secrets.image_pull
    pod: Json = {
        "imagePullSecrets": [{"name": pull}] if pull else [],
        "resourceClaims": [] if gpus else [{"name": "gpus", "resourceClaimTemplateName": model.name}],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": node_selector_of(stack, model),
        "tolerations": tolerations_of(stack, model.gpu_product),
        "containers": [
            container,
            *([build_adapter_sync(stack, model, port=PORT)] if reads_registry(stack, model) else []),
        ],
        "volumes": volumes,
    }
    pod = {key: value for key, value in pod.items() if value}
    pod |= {"automountServiceAccountToken": False, "enableServiceLinks": False}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": build_metadata(model.name, model.namespace, labels=labels),
        "spec": {
            "replicas": model.replicas,
            # As long as the startup probe allows. With the default of ten minutes a long download would count as a failure.
            "progressDeadlineSeconds": 3900,
            "selector": {"matchLabels": labels},
            # A claim that one node mounts can't follow a rolling update to another, and GPUs for one pod more than
            # replicas may never be free.
            "strategy": _ROLLING if shared else {"type": "Recreate"},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def secrets_of_vllm(stack: Stack, model: ServedModel) -> list[ExpectedSecret]:
    """The Secrets of its pods; the one with a token for gated models is optional."""
    expected = registry_secrets(stack, model.namespace) if reads_registry(stack, model) else []
    if secret := stack.environment.secrets.image_pull:
        expected.append(pull_secret(secret, model.namespace))
    registries = stack.environment.registries
    if not registries.air_gapped or registries.hugging_face:
        purpose = "downloads gated models from the Hugging Face hub (optional)"
        name = stack.environment.secrets.hugging_face
        expected.append(ExpectedSecret(name, model.namespace, (HUB_TOKEN_KEY,), purpose))
    return expected
