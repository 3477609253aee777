# SPDX-License-Identifier: Apache-2.0
"""NeMo by NVIDIA's own charts: the microservices' umbrella chart, and NeMo Helix, its successor."""

from tuneyard.catalog.nemo_customizer import (
    customization_targets,
    customization_templates,
    is_shared,
    short_product,
)
from tuneyard.catalog.nim_operator import build_pull_secret
from tuneyard.catalog.repositories import private_repository
from tuneyard.catalog.tracking import tracking_url
from tuneyard.catalog.workflows_evaluator import EXECUTOR, NEMO, SERVES_EVALUATOR
from tuneyard.stack.model import Claim, Component, ExpectedSecret, Json, Need, Service, Stack

HELIX = "nemo-helix"
UMBRELLA_OWNERS = (
    "nemo-customizer",
    "nemo-data-store",
    "nemo-entity-store",
    "nemo-evaluator",
    "nemo-guardrails",
)


def _external_database(stack: Stack, owner: str) -> Json:
    database = stack.database(owner)
    return {
        "host": database.host,
        "port": database.port,
        "user": database.user,
        "database": database.name,
        "existingSecret": database.secret,
        "existingSecretPasswordKey": "password",
    }


def _umbrella(stack: Stack) -> Json:
    """https://docs.nvidia.com/nemo/microservices/latest/set-up/helm/index.html (25.11).

    Every database is our own, so no subchart pulls an image that has left Docker Hub.
    """
    environment = stack.environment
    customizer, shared = environment.fine_tuning.customizer, is_shared(stack)
    mode = "ReadWriteMany" if shared else "ReadWriteOnce"
    own = {
        name: {"postgresql": {"enabled": False}, "externalDatabase": _external_database(stack, name)}
        for name in UMBRELLA_OWNERS
    }
    store_claim: Json = {
        "size": f"{stack.volume_gib('nemo-microservices', 50)}Gi",
        "storageClass": stack.storage_class(),
        "accessModes": ["ReadWriteOnce"],
    }
    return {
        "existingSecret": environment.secrets.ngc,
        "existingImagePullSecret": environment.secrets.ngc_pull,
        "nim-operator": {"enabled": False},
        "nemo-operator": {"enabled": False},
        "deployment-management": {"deployments": {"defaultStorageClass": stack.storage_class()}},
        "customizer": {
            **own["nemo-customizer"],
            "opentelemetry-collector": {"enabled": False},
            "customizerConfig": {
                "entityStoreURL": stack.url("entity-store"),
                "nemoDataStoreURL": stack.url("data-store"),
                "mlflowURL": tracking_url(stack),
                "training": {
                    "pvc": {
                        "storageClass": stack.storage_class(shared=shared),
                        "volumeAccessMode": mode,
                        "size": f"{customizer.workspace_gib}Gi",
                    }
                },
            },
            "modelsStorage": {
                "enabled": True,
                "size": f"{customizer.models_gib}Gi",
                "storageClassName": stack.storage_class(shared=shared),
                "accessModes": [mode],
            },
            "customizationTargets": customization_targets(customizer.targets),
            "customizationConfigTemplates": customization_templates(customizer.targets, short_product(stack)),
        },
        "data-store": {
            **own["nemo-data-store"],
            "persistence": store_claim,
            "strategy": {"type": "Recreate"},
            "admin": {"existingSecret": "nemo-data-store-admin"},
        },
        "entity-store": {
            **own["nemo-entity-store"],
            "appConfig": {"BASE_URL_DATASTORE": stack.url("data-store")},
        },
        "evaluator": {
            **own["nemo-evaluator"],
            "milvus": {"enabled": False},
            "argoWorkflows": {"enabled": False},
            "external": {
                "dataStore": {"endpoint": stack.url("data-store")},
                "milvus": {"endpoint": stack.url("vector-db")},
                "argoWorkflows": {"endpoint": stack.url(SERVES_EVALUATOR)},
            },
            "argoServiceAccount": {"create": False, "name": EXECUTOR},
        },
        "guardrails": own["nemo-guardrails"],
    }


def _umbrella_secrets(stack: Stack) -> list[ExpectedSecret]:
    secrets = stack.environment.secrets
    return [
        build_pull_secret(stack, NEMO),
        ExpectedSecret(secrets.ngc, NEMO, ("NGC_API_KEY",), "downloads models from NGC"),
        ExpectedSecret("nemo-data-store-admin", NEMO, ("username", "password"), "Data Store's administrator"),
        *private_repository(stack, "nemo-microservices"),
    ]


def _helix(stack: Stack) -> Json:
    """https://github.com/NVIDIA-NeMo/nemo-helix (values.yaml of the chart).

    Passwords that the chart would make up at each render (drift, and broken logins under self-heal) all come from
    secrets that exist.
    """
    environment = stack.environment
    values: Json = {
        "existingSecret": environment.secrets.ngc,
        "imagePullSecrets": [{"name": environment.secrets.ngc_pull}],
        "api": {"serviceGroup": "all", "service": {"port": 8080}},
        "core": {
            "storage": {
                "size": f"{stack.volume_gib(HELIX, 200)}Gi",
                "storageClass": stack.storage_class(shared=True),
                "accessModes": ["ReadWriteMany"],
            }
        },
        "postgresql": {"enabled": False},
        "externalDatabase": _external_database(stack, HELIX),
        "clickhouse": {"auth": {"existingSecret": "nemo-helix-clickhouse"}},
        "secrets": {
            "defaultEncryptionKey": {"existingSecret": {"name": "nemo-helix-encryption", "key": "key"}},
        },
        "rbac": {"volcanoEnabled": stack.has("scheduler") and stack.providers["scheduler"].name == "volcano"},
        "platformConfig": {
            "models": {
                "controller": {
                    "backends": {"deployments_plugin": {"default_storage_class": stack.storage_class()}}
                }
            },
        },
    }
    if stack.has("vector-db") and stack.providers["vector-db"].name == "milvus":
        values["platformConfig"]["evaluator"] = {"milvus_url": stack.url("vector-db")}
    return values


def _helix_secrets(stack: Stack) -> list[ExpectedSecret]:
    secrets = stack.environment.secrets
    return [
        build_pull_secret(stack, HELIX),
        ExpectedSecret(secrets.ngc, HELIX, ("NGC_API_KEY",), "downloads models from NGC"),
        ExpectedSecret("nemo-helix-clickhouse", HELIX, ("admin-password",), "ClickHouse's administrator"),
        ExpectedSecret("nemo-helix-encryption", HELIX, ("key",), "encrypts stored secrets: 32 bytes, base64"),
        *private_repository(stack, HELIX),
    ]


COMPONENTS = (
    Component(
        name="nemo-microservices",
        summary="All NeMo microservices by NVIDIA's umbrella chart",
        namespace=NEMO,
        provides=("data-store", "entity-store", "customizer", "evaluator", "guardrails"),
        needs=lambda _: (
            Need("crd:nim", "deployment management makes NIMServices"),
            Need("crd:nemo-training", "training jobs"),
            Need("tracking", "loss curves"),
            Need("vector-db", "retrieval evaluations"),
            Need(SERVES_EVALUATOR, "evaluations run as workflows"),
            Need("gpu", "training"),
        ),
        values=_umbrella,
        services=lambda _: {
            "data-store": Service("nemo-data-store", 3000),
            "entity-store": Service("nemo-entity-store", 8000),
            "customizer": Service("nemo-customizer", 8000),
            "evaluator": Service("nemo-evaluator", 7331),
            "guardrails": Service("nemo-guardrails", 7331),
        },
        secrets=_umbrella_secrets,
        claims=lambda stack: [Claim(stack.volume_gib("nemo-microservices", 50))],
        databases=UMBRELLA_OWNERS,
        keeps_data=True,
    ),
    Component(
        name=HELIX,
        summary="NeMo Helix: NVIDIA's successor of the microservices, one chart",
        namespace=HELIX,
        provides=("helix",),
        needs=lambda _: (Need("gpu", "training and serving"),),
        after=("vector-db", "scheduler"),
        values=_helix,
        services=lambda _: {"helix": Service("nemo-helix-api", 8080)},
        secrets=_helix_secrets,
        claims=lambda stack: [
            Claim(stack.volume_gib(HELIX, 200), shared=True, path=("storage", "readWriteMany"))
        ],
        databases=(HELIX,),
        keeps_data=True,
    ),
)
