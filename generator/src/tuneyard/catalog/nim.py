# SPDX-License-Identifier: Apache-2.0
"""NIMService and NIMPipeline. Fields: the CRDs of k8s-nim-operator 3.1.2; nothing empty, quantities canonical."""

from tuneyard.catalog.adapter_sync import NIM_ADAPTERS, build_nim_sidecar
from tuneyard.catalog.gpu_requests import gpu_resources, node_selector_of, tolerations_of
from tuneyard.catalog.nim_cache import (
    API,
    RAY_MAJOR,
    build_mirror_variables,
    build_nim_proxy,
    cache_name,
    image_of,
    major_of,
)
from tuneyard.catalog.nim_operator import build_pull_secret
from tuneyard.catalog.objects import build_metadata, without_empty
from tuneyard.catalog.runtimes import pull_secret, registry_secrets
from tuneyard.catalog.served_models import takes_adapters
from tuneyard.environment.models import LoraServing, ServedModel
from tuneyard.stack.model import ExpectedSecret, Json, Stack

LORA_FOLDER = "/model-store/loras"
"""Where people may put adapters by hand, if no `adapter-sync` does it."""


def _environment_variables(stack: Stack, model: ServedModel) -> list[Json]:
    """The environment variables for the image's major version. NIM silently ignores unknown names."""
    values: dict[str, str] = {}
    if major_of(model.image.tag if model.image else "1") < RAY_MAJOR:
        values["NIM_MAX_MODEL_LEN"] = str(model.max_sequence_length)
        if lora := model.lora:
            values["NIM_MAX_GPU_LORAS"] = str(lora.max_gpu_adapters)
            values["NIM_MAX_CPU_LORAS"] = str(lora.max_cpu_adapters)
            values["NIM_MAX_LORA_RANK"] = str(lora.max_rank)
    if lora := model.lora:
        values["NIM_PEFT_SOURCE"] = _adapters_of(stack, model, lora)
        values["NIM_PEFT_REFRESH_INTERVAL"] = str(lora.refresh_seconds)
    values |= {entry.name: entry.value for entry in model.env}
    return build_mirror_variables(stack) + [{"name": name, "value": value} for name, value in values.items()]


def _adapters_of(stack: Stack, model: ServedModel, lora: LoraServing) -> str:
    """Where the NIM looks for adapters."""
    if lora.source == "entity-store" and stack.has("entity-store"):
        return stack.url("entity-store")
    return NIM_ADAPTERS if takes_adapters(stack, model) else LORA_FOLDER


def _arguments(model: ServedModel) -> list[str]:
    """The engine flags that replace variables in NIM 2."""
    if major_of(model.image.tag if model.image else "1") < RAY_MAJOR:
        return []
    arguments = [f"--max-model-len={model.max_sequence_length}"]
    if lora := model.lora:
        arguments += [
            "--enable-lora",
            f"--max-loras={lora.max_gpu_adapters}",
            f"--max-cpu-loras={lora.max_cpu_adapters}",
            f"--max-lora-rank={lora.max_rank}",
        ]
    return arguments


def build_nim_service(stack: Stack, model: ServedModel) -> Json:
    """The NIMService."""
    metadata = build_metadata(model.name, model.namespace)
    return {
        "apiVersion": API,
        "kind": "NIMService",
        "metadata": metadata,
        "spec": build_nim_service_spec(stack, model),
    }


def build_nim_service_spec(stack: Stack, model: ServedModel) -> Json:
    """The spec of a NIMService, also inside of a NIMPipeline."""
    repository, _, tag = image_of(stack, model).rpartition(":")
    secrets = stack.environment.secrets
    by_claim = stack.has("dra")
    gpus = gpu_resources(stack, model.gpus)
    syncs = takes_adapters(stack, model)
    spec: Json = {
        "image": {
            "repository": repository,
            "tag": tag,
            "pullPolicy": "IfNotPresent",
            "pullSecrets": [
                secrets.ngc_pull,
                *([secrets.image_pull] if secrets.image_pull and syncs else []),
            ],
        },
        # Required up to operator 3.1.2, also where nothing is pulled with it.
        "authSecret": secrets.hugging_face if model.hugging_face else secrets.ngc,
        "env": _environment_variables(stack, model),
        "args": _arguments(model),
        "storage": {
            "nimCache": {"name": cache_name(stack, model), "profile": model.profile},
            "sharedMemorySizeLimit": "16Gi",
        },
        # Absent under autoscaling: the API refuses both.
        "replicas": None if model.autoscaling else model.replicas,
        "scale": _scale(model),
        "resources": None if by_claim else {"limits": gpus, "requests": gpus},
        "draResources": [_dra_claim(model)] if by_claim else None,
        "multiNode": _multi_node(model),
        "expose": _expose(stack),
        "metrics": {"enabled": True, "serviceMonitor": {"interval": "30s"}} if stack.has("metrics") else None,
        "nodeSelector": node_selector_of(stack, model),
        "tolerations": tolerations_of(stack, model.gpu_product),
        "proxy": build_nim_proxy(stack),
        "sidecarContainers": [build_nim_sidecar(stack, model)] if syncs else None,
    }
    cleaned: Json = without_empty(spec)
    return cleaned


def _scale(model: ServedModel) -> Json | None:
    if not model.autoscaling:
        return None
    target = {"type": "AverageValue", "averageValue": str(model.autoscaling.target_requests)}
    return {
        "enabled": True,
        "hpa": {
            "minReplicas": model.autoscaling.min_replicas,
            "maxReplicas": model.autoscaling.max_replicas,
            "metrics": [
                {"type": "Pods", "pods": {"metric": {"name": "num_requests_running"}, "target": target}}
            ],
        },
    }


def _dra_claim(model: ServedModel) -> Json:
    device = {
        "name": "gpu",
        "count": model.gpus,
        "deviceClassName": "gpu.nvidia.com",
        "driverName": "gpu.nvidia.com",
    }
    return {"claimCreationSpec": {"devices": [device]}}


def _multi_node(model: ServedModel) -> Json | None:
    if not model.multi_node:
        return None
    ray = major_of(model.image.tag if model.image else "1") >= RAY_MAJOR
    return {
        "backendType": "lws",
        "parallelism": {"tensor": model.gpus, "pipeline": model.multi_node.pipeline},
        **({"ray": {"rayPort": 6379}} if ray else {"mpi": {"mpiStartTimeout": 300}}),
    }


def _expose(stack: Stack) -> Json:
    expose: Json = {"service": {"type": "ClusterIP", "port": 8000}}
    cluster = stack.environment.cluster
    if cluster.domain and cluster.ingress:
        ingress = {"ingressClass": cluster.ingress.class_name, "tlsSecretName": cluster.ingress.tls_secret}
        expose["router"] = {"hostDomainName": cluster.domain, "ingress": ingress}
    return expose


def build_nim_pipeline(stack: Stack, name: str, models: list[ServedModel]) -> Json:
    """Several NIMServices as one object."""
    services = [
        {"name": model.name, "enabled": True, "spec": build_nim_service_spec(stack, model)}
        for model in models
    ]
    namespace = models[0].namespace if models else "models"
    metadata = build_metadata(name, namespace)
    return {"apiVersion": API, "kind": "NIMPipeline", "metadata": metadata, "spec": {"services": services}}


def secrets_of_nim(stack: Stack, model: ServedModel) -> list[ExpectedSecret]:
    """The Secrets that the model's namespace must have."""
    secrets, mirror = stack.environment.secrets, stack.environment.registries.models
    found = [build_pull_secret(stack, model.namespace)]
    if takes_adapters(stack, model):
        found += registry_secrets(stack, model.namespace)
        if secrets.image_pull:
            found.append(pull_secret(secrets.image_pull, model.namespace))
    if model.hugging_face:
        use = "downloads models from the Hugging Face hub"
        return [*found, ExpectedSecret(secrets.hugging_face, model.namespace, ("HF_TOKEN",), use)]
    # The NIM Operator puts the key into the pod that serves, also where nothing is downloaded from NGC.
    use = "must be there, any value: models come from the mirror" if mirror else "downloads models from NGC"
    found.append(ExpectedSecret(secrets.ngc, model.namespace, ("NGC_API_KEY",), use))
    if mirror and mirror.secret_keys:
        use = f"downloads models from {mirror.url}"
        found.append(ExpectedSecret(mirror.secret, model.namespace, mirror.secret_keys, use))
    return found
