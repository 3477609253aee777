# SPDX-License-Identifier: Apache-2.0
"""The sidecar container of a server that checks, copies and loads adapters from the registry (ADR 10)."""

from importlib import resources

from tuneyard_api.pod_contract import CA_FILE, CA_FOLDER, CA_VARIABLES, ENV_S3
from tuneyard_api.pod_security import CONTAINER_SECURITY
from tuneyard_api.registry import STATUS_PORT

from tuneyard.catalog.objects import build_config_map
from tuneyard.catalog.runtimes import REGISTRY_CLAIM, build_ca_bundle, build_download_settings
from tuneyard.catalog.served_models import base_of
from tuneyard.environment.models import ServedModel
from tuneyard.environment.tuning import RegistryInS3
from tuneyard.stack.model import Json, Stack

ADAPTERS, REGISTRY, MODULES = "/adapters", "/registry", "/etc/tuneyard/python"
MIDDLEWARE = "inference_only.InferenceOnly"
COMMAND = "tuneyard-adapter-sync"
NIM_ADAPTERS = "/scratch"
"""Where a NIM with a sidecar finds adapters: the NIM Operator mounts it in all containers of the pod."""
_NIM_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
"""Where the NIM Operator puts all authorities, those of `certConfigMap` among them."""
_PREFIX = "TUNEYARD_SYNC_"


def build_adapter_sync(stack: Stack, model: ServedModel, *, port: int) -> Json:
    """The container beside a vLLM; `port` is the server's on the loopback address."""
    place = stack.environment.fine_tuning.registry_s3
    mounts: list[Json] = [{"name": "adapters", "mountPath": ADAPTERS}]
    if place is None:
        mounts.append({"name": "registry", "mountPath": REGISTRY, "readOnly": True})
    elif build_ca_bundle(stack):
        mounts.append({"name": "ca", "mountPath": CA_FOLDER, "readOnly": True})
    return {
        "name": "adapter-sync",
        "image": stack.mirrored(stack.environment.registries.operator_image),
        "command": [COMMAND],
        "env": [
            *_variables(stack, model, "vllm", ADAPTERS, CA_FILE),
            {"name": f"{_PREFIX}SERVER_PORT", "value": str(port)},
        ],
        "ports": [{"name": "adapters", "containerPort": STATUS_PORT}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": dict(CONTAINER_SECURITY),
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  a path in the pod
    }


def build_nim_sidecar(stack: Stack, model: ServedModel) -> Json:
    """The entry of a NIMService's `sidecarContainers`.

    The NIM Operator (3.1.2) takes no more than these fields and adds what the NIM itself has: its variables, all of its
    mounts, and `/scratch`, a folder of the pod that is there only where there is a sidecar.
    """
    repository, _, tag = stack.mirrored(stack.environment.registries.operator_image).rpartition(":")
    return {
        "name": "adapter-sync",
        "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
        "command": [COMMAND],
        "env": [
            *_variables(stack, model, "nim", NIM_ADAPTERS, _NIM_CA_FILE),
            # The NIM's variables come too, and a mirror of models names another store by AWS_ENDPOINT_URL.
            {"name": "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "value": "true"},
        ],
    }


def _variables(stack: Stack, model: ServedModel, server: str, folder: str, authorities: str) -> list[Json]:
    """The settings of a container that fills `folder`, and its way to S3 with the bundle `authorities`."""
    source, place = base_of(model), stack.environment.fine_tuning.registry_s3
    settings = {
        **({"SOURCE_DIR": REGISTRY} if place is None else _place(place)),
        "TARGET_DIR": folder,
        "BASE_REPO": source.repo if source else "",
        "BASE_REVISION": source.revision if source else "",
        "BASE_MODEL": source.repo if source else "",
        "SERVER": server,
    }
    return [
        *({"name": f"{_PREFIX}{name}", "value": value} for name, value in settings.items()),
        *(_way_to_s3(stack, place, authorities) if place is not None else ()),
    ]


def _place(place: RegistryInS3) -> dict[str, str]:
    """The settings for a registry in S3; those of its defaults are left out."""
    settings = {
        "S3_BUCKET": place.bucket,
        "S3_PREFIX": place.prefix,
        "S3_ENDPOINT": place.endpoint,
        "S3_REGION": place.region,
    }
    return {name: value for name, value in settings.items() if value}


def _way_to_s3(stack: Stack, place: RegistryInS3, authorities: str) -> list[Json]:
    """Proxy, authorities and credentials for a registry in S3."""
    proxy = {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"}
    variables = [entry for entry in build_download_settings(stack) if entry["name"] in proxy]
    if build_ca_bundle(stack):
        variables += [{"name": name, "value": authorities} for name in CA_VARIABLES]
    for key in ENV_S3:
        optional = {"optional": True} if key == ENV_S3[-1] else {}
        chosen = {"name": place.secret, "key": key, **optional}
        variables.append({"name": key, "valueFrom": {"secretKeyRef": chosen}})
    return variables


def adapter_volumes(stack: Stack) -> list[Json]:
    """The server's own folder of adapters, and the registry on a claim that it is filled from."""
    folder: Json = {"name": "adapters", "emptyDir": {}}
    if stack.environment.fine_tuning.registry_s3 is not None:
        return [folder]
    return [
        folder,
        {"name": "registry", "persistentVolumeClaim": {"claimName": REGISTRY_CLAIM, "readOnly": True}},
    ]


def build_middleware_map(model: ServedModel) -> Json:
    """The ConfigMap with the module that keeps adapter paths for the pod itself."""
    text = resources.files(__package__).joinpath("inference_only.py").read_text()
    return build_config_map(middleware_map_name(model), model.namespace, {"inference_only.py": text})


def middleware_map_name(model: ServedModel) -> str:
    """Name of that ConfigMap."""
    return f"{model.name}-inference-only"
