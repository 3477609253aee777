# SPDX-License-Identifier: Apache-2.0
"""The sidecar container of a server that checks, copies and loads adapters from the registry (ADR 10)."""

from importlib import resources

from tuneyard.catalog.objects import build_config_map
from tuneyard.environment.models import ServedModel
from tuneyard.stack.model import Json, Stack

ADAPTERS, REGISTRY, MODULES = "/adapters", "/registry", "/etc/tuneyard/python"
MIDDLEWARE = "inference_only.InferenceOnly"
_STATUS_PORT = 9472


def build_adapter_sync(stack: Stack, model: ServedModel, *, server: str, port: int) -> Json:
    """The container; `server` is `vllm` or `nim`, `port` is the server's on the loopback address."""
    source = model.hugging_face
    settings = {
        "SOURCE_DIR": REGISTRY,
        "TARGET_DIR": ADAPTERS,
        "BASE_REPO": source.repo if source else "",
        "BASE_REVISION": source.revision if source else "",
        "BASE_MODEL": source.repo if source else "",
        "SERVER": server,
        "SERVER_PORT": str(port),
    }
    return {
        "name": "adapter-sync",
        "image": stack.mirrored(stack.environment.registries.operator_image),
        "command": ["tuneyard-adapter-sync"],
        "env": [{"name": f"TUNEYARD_SYNC_{name}", "value": value} for name, value in settings.items()],
        "ports": [{"name": "adapters", "containerPort": _STATUS_PORT}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "adapters", "mountPath": ADAPTERS},
            {"name": "registry", "mountPath": REGISTRY, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  a path in the pod
        ],
    }


def adapter_volumes(claim: str) -> list[Json]:
    """The server's own folder of adapters, and the registry that it is filled from."""
    return [
        {"name": "adapters", "emptyDir": {}},
        {"name": "registry", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}},
    ]


def build_middleware_map(model: ServedModel) -> Json:
    """The ConfigMap with the module that keeps adapter paths for the pod itself."""
    text = resources.files(__package__).joinpath("inference_only.py").read_text()
    return build_config_map(middleware_map_name(model), model.namespace, {"inference_only.py": text})


def middleware_map_name(model: ServedModel) -> str:
    """Name of that ConfigMap."""
    return f"{model.name}-inference-only"
