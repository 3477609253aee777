# SPDX-License-Identifier: Apache-2.0
"""FineTuneRuntimes: they carry every setting of the environment that a job's pods need."""

from tuneyard_api.names import API_VERSION, RUNTIME_KIND
from tuneyard_api.pod_contract import ENV_S3

from tuneyard.catalog.gpu_requests import DEVICE_CLASS, gpu_resource
from tuneyard.catalog.objects import build_metadata, build_tolerations, merged, without_empty
from tuneyard.catalog.served_models import build_served_models
from tuneyard.catalog.tracking import tracking_url
from tuneyard.environment.tuning import Runtime
from tuneyard.stack.model import ExpectedSecret, Json, Stack

REGISTRY_CLAIM, CACHE_CLAIM = "adapters", "model-cache"
HUB_TOKEN_KEY = "HF_TOKEN"  # noqa: S105  the name of a key


def build_runtime(stack: Stack, runtime: Runtime) -> Json:
    """One FineTuneRuntime; fields: tuneyard_api.runtime."""
    environment = stack.environment
    retention = environment.fine_tuning.registry_retention
    spec: Json = {
        "image": runtime.image or stack.mirrored(environment.registries.trainer_image),
        "imagePullSecrets": [environment.secrets.image_pull] if environment.secrets.image_pull else None,
        "accelerator": runtime.accelerator,
        "methods": list(runtime.methods),
        "env": build_download_settings(stack),
        "caBundle": build_ca_bundle(stack),
        "modelCache": CACHE_CLAIM,
        "servedModels": build_served_models(stack, runtime),
        "registryRetention": (
            retention.model_dump(by_alias=True) if retention and runtime.publish_to == "registry" else None
        ),
        "tracking": build_tracking(stack),
        "defaults": {
            "storageClassName": stack.storage_class(),
            **_registry(stack, runtime),
            "hubToken": None if _is_offline(stack) else hub_token(stack),
        },
    }
    if runtime.trained_by == "nemo-customizer":
        # Pods do not train, and the service has a registry of its own.
        spec |= {
            "customizer": build_customizer(stack),
            "servedModels": None,
            "registryRetention": None,
            "tracking": None,
        }
        spec["defaults"] = {
            **spec["defaults"], "registry": None, "registryS3": None, "registryDataStore": None
        }  # fmt: skip
    elif runtime.accelerator == "nvidia":
        spec |= _gpus(stack)
    spec = merged(without_empty(spec), dict(runtime.spec))
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


def build_customizer(stack: Stack) -> Json:
    """Addresses of the services that train, and the targets that FineTuneJobs can name; fields: tuneyard_api.customizer."""
    targets = stack.environment.fine_tuning.customizer.targets
    return {
        "endpoint": stack.url("customizer"),
        "entityStore": stack.url("entity-store"),
        "dataStore": stack.url("data-store"),
        "models": [
            {"base": {"huggingFace": each.hugging_face.model_dump(by_alias=True)}, "target": each.name}
            for each in targets
            if each.hugging_face is not None
        ],
    }


def build_tracking(stack: Stack) -> Json | None:
    """The tracker of the environment, as a FineTuneRuntime's `tracking`."""
    address = tracking_url(stack)
    return {"mlflow": {"url": address}} if address else None


def _registry(stack: Stack, runtime: Runtime) -> Json:
    """The registry among a runtime's defaults: the Data Store, the one in S3, or the claim."""
    if runtime.publish_to == "data-store":
        stores = {"endpoint": stack.url("data-store"), "entityStore": stack.url("entity-store")}
        return {"registryDataStore": stores}
    place = stack.environment.fine_tuning.registry_s3
    if place is None:
        return {"registry": {"claimName": REGISTRY_CLAIM}}
    fields = place.model_dump(by_alias=True, exclude={"secret"})
    return {"registryS3": without_empty({**fields, "secretRef": {"name": place.secret}})}


def _gpus(stack: Stack) -> Json:
    resource = gpu_resource(stack)
    return {
        "acceleratorResource": resource,
        "deviceClassName": DEVICE_CLASS if resource is None else None,
        "quantizations": ["nf4", "int8", *(["fp8"] if stack.environment.gpus.have_fp8() else [])],
        "tolerations": build_tolerations(stack.environment.gpus.taints()),
    }


def build_download_settings(stack: Stack) -> list[Json]:
    """Environment variables for downloads by jobs and vLLM: proxy, hub mirror, air gap."""
    environment = stack.environment
    values: dict[str, str] = {}
    if proxy := environment.proxy:
        exempt = ",".join(proxy.exempt)
        values |= {"HTTPS_PROXY": proxy.https, "HTTP_PROXY": proxy.https, "NO_PROXY": exempt}
    if environment.registries.hugging_face:
        values["HF_ENDPOINT"] = environment.registries.hugging_face
    if _is_offline(stack):
        values["HF_HUB_OFFLINE"] = "1"
    return [{"name": name, "value": value} for name, value in values.items()]


def build_ca_bundle(stack: Stack) -> Json | None:
    """The ConfigMap with the private CAs that clients trust, as a FineTuneRuntime's `caBundle`."""
    authority = stack.environment.certificate_authority
    return {"configMapName": authority.config_map, "key": authority.key} if authority else None


def hub_token(stack: Stack) -> Json:
    """The Secret of a token for gated models, as a job's `secretRef`."""
    return {"name": stack.environment.secrets.hugging_face, "key": HUB_TOKEN_KEY}


def pull_secret(name: str, namespace: str) -> ExpectedSecret:
    """The image pull secret of the mirror, or of the registry that holds Tuneyard's own images."""
    purpose = "pulls images from the mirror or from the registry of Tuneyard's own images"
    return ExpectedSecret(name, namespace, (".dockerconfigjson",), purpose, "kubernetes.io/dockerconfigjson")


def registry_secrets(stack: Stack, namespace: str) -> list[ExpectedSecret]:
    """The Secret of a registry in S3, in a namespace of jobs or of a server."""
    place = stack.environment.fine_tuning.registry_s3
    if place is None:
        return []
    return [
        ExpectedSecret(place.secret, namespace, ENV_S3[:2], "reads and writes the adapter registry in S3")
    ]


def _is_offline(stack: Stack) -> bool:
    """Whether no hub can be reached, not even a mirror."""
    registries = stack.environment.registries
    return registries.air_gapped and registries.hugging_face is None
