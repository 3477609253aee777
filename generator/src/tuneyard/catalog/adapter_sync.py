# SPDX-License-Identifier: Apache-2.0
"""The sidecar container of a server that checks, copies and loads adapters from the registry (ADR 10)."""

from importlib import resources

from tuneyard_api.pod_contract import CA_FILE, CA_FOLDER, CA_VARIABLES, ENV_S3
from tuneyard_api.registry import STATUS_PORT

from tuneyard.catalog.objects import build_config_map
from tuneyard.catalog.runtimes import REGISTRY_CLAIM, build_ca_bundle, build_download_settings
from tuneyard.environment.models import ServedModel
from tuneyard.environment.tuning import RegistryInS3
from tuneyard.stack.model import Json, Stack

ADAPTERS, REGISTRY, MODULES = "/adapters", "/registry", "/etc/tuneyard/python"
MIDDLEWARE = "inference_only.InferenceOnly"


def build_adapter_sync(stack: Stack, model: ServedModel, *, server: str, port: int) -> Json:
    """The container; `server` is `vllm` or `nim`, `port` is the server's on the loopback address."""
    source, place = model.hugging_face, stack.environment.fine_tuning.registry_s3
    settings = {
        **({"SOURCE_DIR": REGISTRY} if place is None else _place(place)),
        "TARGET_DIR": ADAPTERS,
        "BASE_REPO": source.repo if source else "",
        "BASE_REVISION": source.revision if source else "",
        "BASE_MODEL": source.repo if source else "",
        "SERVER": server,
        "SERVER_PORT": str(port),
    }
    mounts: list[Json] = [{"name": "adapters", "mountPath": ADAPTERS}]
    if place is None:
        mounts.append({"name": "registry", "mountPath": REGISTRY, "readOnly": True})
    elif build_ca_bundle(stack):
        mounts.append({"name": "ca", "mountPath": CA_FOLDER, "readOnly": True})
    return {
        "name": "adapter-sync",
        "image": stack.mirrored(stack.environment.registries.operator_image),
        "command": ["tuneyard-adapter-sync"],
        "env": [
            *({"name": f"TUNEYARD_SYNC_{name}", "value": value} for name, value in settings.items()),
            *(_way_to_s3(stack, place) if place is not None else ()),
        ],
        "ports": [{"name": "adapters", "containerPort": STATUS_PORT}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  a path in the pod
    }


def _place(place: RegistryInS3) -> dict[str, str]:
    """The settings for a registry in S3; those of its defaults are left out."""
    settings = {
        "S3_BUCKET": place.bucket,
        "S3_PREFIX": place.prefix,
        "S3_ENDPOINT": place.endpoint,
        "S3_REGION": place.region,
    }
    return {name: value for name, value in settings.items() if value}


def _way_to_s3(stack: Stack, place: RegistryInS3) -> list[Json]:
    """Proxy, authorities and credentials for a registry in S3."""
    proxy = {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"}
    variables = [entry for entry in build_download_settings(stack) if entry["name"] in proxy]
    if build_ca_bundle(stack):
        variables += [{"name": name, "value": CA_FILE} for name in CA_VARIABLES]
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
