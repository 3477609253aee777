# SPDX-License-Identifier: Apache-2.0
"""NIMCache, NIMService and NIMPipeline. Fields: the CRDs of k8s-nim-operator 3.1.2; nothing empty, quantities canonical."""

from tuneyard.catalog.gpu_requests import gpu_resources
from tuneyard.catalog.nim_operator import build_pull_secret
from tuneyard.catalog.objects import build_claim, build_metadata, build_tolerations, without_empty
from tuneyard.environment.models import ServedModel
from tuneyard.stack.model import ExpectedSecret, Json, Stack

API = "apps.nvidia.com/v1alpha1"
LORA_FOLDER = "/model-store/loras"
RAY_MAJOR = 2
"""NIM 2 and later: LoRA by engine flags, several nodes by Ray, adapters from a folder only."""


def major_of(tag: str) -> int:
    """The major version of a NIM image tag; 1 when the tag does not begin with a number."""
    head = tag.removeprefix("v").split(".", maxsplit=1)[0]
    return int(head) if head.isdigit() else 1


def cache_name(model: ServedModel) -> str:
    """The name of the NIMCache and of its claim."""
    return f"{model.name}-cache"


def build_nim_claim(stack: Stack, model: ServedModel, *, shared: bool) -> Json:
    """The claim. Tuneyard creates it, because one from the NIM Operator would be deleted with the NIMCache."""
    return build_claim(
        cache_name(model), model.namespace, model.cache_gib, stack.storage_class(shared=shared), shared=shared
    )


def tolerations_of(stack: Stack, product: str | None) -> list[Json]:
    """The tolerations for the nodes that a model may run on."""
    return build_tolerations(stack.environment.gpus.taints(product))


def node_selector_of(stack: Stack, model: ServedModel) -> Json | None:
    """The label of the nodes that have the model's GPU product."""
    product = model.gpu_product
    return {"nvidia.com/gpu.product": stack.environment.gpus.label_of(product)} if product else None


def build_nim_cache(stack: Stack, model: ServedModel, *, shared: bool) -> Json:
    """The NIMCache. Its spec is immutable, so it leaves out everything that may change."""
    spec: Json = {
        "source": _source(stack, model),
        "storage": {
            "pvc": {
                "create": False,
                "name": cache_name(model),
                "size": f"{model.cache_gib}Gi",
                "volumeAccessMode": "ReadWriteMany" if shared else "ReadWriteOnce",
            }
        },
        "env": _repository_override(stack),
        "nodeSelector": node_selector_of(stack, model),
        "tolerations": tolerations_of(stack, model.gpu_product),
        "proxy": _proxy(stack),
    }
    metadata = build_metadata(cache_name(model), model.namespace, keep=True)
    return {"apiVersion": API, "kind": "NIMCache", "metadata": metadata, "spec": without_empty(spec)}


def _source(stack: Stack, model: ServedModel) -> Json:
    secrets = stack.environment.secrets
    if model.hugging_face:
        namespace, _, name = model.hugging_face.repo.partition("/")
        return {
            "hf": {
                "endpoint": stack.environment.registries.hugging_face or "https://huggingface.co",
                "namespace": namespace,
                "modelName": name,
                "revision": model.hugging_face.revision,
                "authSecret": secrets.hugging_face,
                "modelPuller": stack.image("nim", "hf-puller"),
                "pullSecret": secrets.ngc_pull,
            }
        }
    # A profile excludes every other choice. Without one the NIM Operator (3.1.2) downloads all that fit the rest.
    chosen: Json = (
        {"profiles": [model.profile]}
        if model.profile
        else {
            "engine": model.nim_engine,
            "tensorParallelism": str(model.gpus) if model.nim_engine else None,
            "gpus": [{"product": model.gpu_product}] if model.gpu_product and model.nim_engine else None,
            "lora": True if model.lora else None,
        }
    )
    return {
        "ngc": {
            "authSecret": secrets.ngc,
            "modelPuller": image_of(stack, model),
            "pullSecret": secrets.ngc_pull,
            "model": chosen,
        }
    }


def image_of(stack: Stack, model: ServedModel) -> str:
    """The NIM image; empty if it is missing, which a check reports."""
    return stack.mirrored(f"{model.image.repository}:{model.image.tag}") if model.image else ""


def _proxy(stack: Stack) -> Json | None:
    """The proxy settings. Both NIMCache and NIMService need them to reach the registry."""
    proxy, authority = stack.environment.proxy, stack.environment.certificate_authority
    if not proxy and not authority:
        return None
    exempt = ",".join(proxy.exempt) if proxy else None
    address = proxy.https if proxy else None
    # NIM Operator 3.1.2 reads authorities from here, with or without a proxy.
    certificates = authority.config_map if authority else None
    proxied: Json = without_empty(
        {"httpProxy": address, "httpsProxy": address, "noProxy": exempt, "certConfigMap": certificates}
    )
    return proxied


def _repository_override(stack: Stack) -> list[Json]:
    mirror = stack.environment.registries.models
    return [{"name": "NIM_REPOSITORY_OVERRIDE", "value": mirror}] if mirror else []


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
        entity_store = lora.source == "entity-store" and stack.has("entity-store")
        values["NIM_PEFT_SOURCE"] = stack.url("entity-store") if entity_store else LORA_FOLDER
        values["NIM_PEFT_REFRESH_INTERVAL"] = str(lora.refresh_seconds)
    values |= {entry.name: entry.value for entry in model.env}
    return _repository_override(stack) + [{"name": name, "value": value} for name, value in values.items()]


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
    spec: Json = {
        "image": {
            "repository": repository,
            "tag": tag,
            "pullPolicy": "IfNotPresent",
            "pullSecrets": [secrets.ngc_pull],
        },
        # Required up to operator 3.1.2, also where nothing is pulled with it.
        "authSecret": secrets.hugging_face if model.hugging_face else secrets.ngc,
        "env": _environment_variables(stack, model),
        "args": _arguments(model),
        "storage": {
            "nimCache": {"name": cache_name(model), "profile": model.profile},
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
        "proxy": _proxy(stack),
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
    secrets = stack.environment.secrets
    key = ExpectedSecret(
        secrets.hugging_face, model.namespace, ("HF_TOKEN",), "downloads models from the Hugging Face hub"
    )
    if not model.hugging_face:
        key = ExpectedSecret(
            secrets.ngc, model.namespace, ("NGC_API_KEY",), "downloads models from NGC or its mirror"
        )
    return [build_pull_secret(stack, model.namespace), key]
