# SPDX-License-Identifier: Apache-2.0
"""vLLM in place of NIM: a Deployment, a Service and the claim that keeps the weights. Needs no NVIDIA account.

Flags and LoRA resolver: https://docs.vllm.ai/en/stable/cli/serve/ and https://docs.vllm.ai/en/stable/features/lora.html.
"""

from typing import TYPE_CHECKING

from tuneyard_api.names import LABEL_APP

from tuneyard.catalog.component import ExpectedSecret, Json
from tuneyard.catalog.nim import cache_name, node_selector_of, tolerations_of
from tuneyard.catalog.objects import build_claim, build_metadata
from tuneyard.catalog.tuneyard import REGISTRY_CLAIM
from tuneyard.environment.models import ServedModel

if TYPE_CHECKING:
    from tuneyard.stack import Stack

PORT = 8000
ADAPTERS, CACHE = "/adapters", "/cache"


def build_vllm(stack: "Stack", model: ServedModel, *, shared: bool) -> list[Json]:
    """Claim, Deployment, Service, and a ServiceMonitor when something reads it."""
    labels = {LABEL_APP: model.name}
    claim = build_claim(
        cache_name(model), model.namespace, model.cache_gib, stack.storage_class(shared=shared), shared=shared
    )
    service: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": build_metadata(model.name, model.namespace, labels=labels),
        "spec": {"selector": labels, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]},
    }
    objects = [claim, _deployment(stack, model, labels, shared=shared), service]
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


def reads_registry(stack: "Stack", model: ServedModel) -> bool:
    """Whether jobs publish in the model's namespace, so that its `adapters` claim can be mounted."""
    return bool(model.lora) and model.namespace in {n.name for n in stack.environment.fine_tuning.namespaces}


def _arguments(model: ServedModel) -> list[str]:
    source = model.hugging_face
    arguments = [
        f"--model={source.repo if source else ''}",
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
        ]
    return arguments


def _environment_variables(stack: "Stack", model: ServedModel) -> list[Json]:
    token = {"name": stack.environment.secrets.hugging_face, "key": "HF_TOKEN", "optional": True}
    # No user of this id is in the image: libraries that ask for a name or a home get one.
    values = {
        "HOME": CACHE,
        "USER": "vllm",
        "HF_HOME": f"{CACHE}/huggingface",
        "VLLM_CACHE_ROOT": f"{CACHE}/vllm",
        "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/inductor",
    }
    if model.lora:
        values["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "true"
        if reads_registry(stack, model):
            values |= {"VLLM_PLUGINS": "lora_filesystem_resolver", "VLLM_LORA_RESOLVER_CACHE_DIR": ADAPTERS}
    if proxy := stack.environment.proxy:
        values |= {"HTTPS_PROXY": proxy.https, "NO_PROXY": ",".join(proxy.exempt)}
    values |= {entry.name: entry.value for entry in model.env}
    variables: list[Json] = [{"name": name, "value": value} for name, value in values.items()]
    if stack.environment.registries.air_gapped:
        return [*variables, {"name": "HF_HUB_OFFLINE", "value": "1"}]
    return [*variables, {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": token}}]


def _deployment(stack: "Stack", model: ServedModel, labels: Json, *, shared: bool) -> Json:
    volumes: list[Json] = [
        {"name": "cache", "persistentVolumeClaim": {"claimName": cache_name(model)}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    mounts: list[Json] = [
        {"name": "cache", "mountPath": CACHE},
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108  a path in the pod
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  a path in the pod
    ]
    if reads_registry(stack, model):
        volumes.append(
            {"name": "adapters", "persistentVolumeClaim": {"claimName": REGISTRY_CLAIM, "readOnly": True}}
        )
        mounts.append({"name": "adapters", "mountPath": ADAPTERS, "readOnly": True})
    gpus = str(model.gpus)
    image = (
        f"{model.image.repository}:{model.image.tag}" if model.image else stack.pin("vllm").images["server"]
    )
    health = {"path": "/health", "port": "http"}
    container = {
        "name": "vllm",
        "image": stack.mirrored(image),
        "args": _arguments(model),
        "env": _environment_variables(stack, model),
        "ports": [{"name": "http", "containerPort": PORT}],
        # A download and a compilation may take an hour.
        "startupProbe": {"httpGet": health, "periodSeconds": 10, "failureThreshold": 360},
        "readinessProbe": {"httpGet": health, "periodSeconds": 10},
        "livenessProbe": {"httpGet": health, "periodSeconds": 30, "failureThreshold": 4},
        "resources": {
            "requests": {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": gpus},
            "limits": {"nvidia.com/gpu": gpus},
        },
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
    }
    pod: Json = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": node_selector_of(stack, model),
        "tolerations": tolerations_of(stack, model.gpu_product),
        "containers": [container],
        "volumes": volumes,
    }
    pod = {key: value for key, value in pod.items() if value}
    pod["automountServiceAccountToken"] = False
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": build_metadata(model.name, model.namespace, labels=labels),
        "spec": {
            "replicas": model.replicas,
            # As long as the startup probe allows; the default of ten minutes would call a download a failure.
            "progressDeadlineSeconds": 3900,
            "selector": {"matchLabels": labels},
            # A claim that one node mounts can't follow a rolling update to another.
            "strategy": {"type": "RollingUpdate" if shared else "Recreate"},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def secrets_of_vllm(stack: "Stack", model: ServedModel) -> list[ExpectedSecret]:
    """A token for gated models; optional, but named."""
    if stack.environment.registries.air_gapped:
        return []
    return [
        ExpectedSecret(
            stack.environment.secrets.hugging_face,
            model.namespace,
            ("HF_TOKEN",),
            "downloads gated models from the Hugging Face hub (optional)",
        )
    ]
