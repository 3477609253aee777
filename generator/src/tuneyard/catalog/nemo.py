# SPDX-License-Identifier: Apache-2.0
"""NeMo microservices as objects of the NIM Operator: Data Store, Entity Store, Evaluator, Guardrails.

NVIDIA calls them legacy (NeMo Helix follows); the lab runs them. The Customizer has a module of its own.
Fields: the CRDs of k8s-nim-operator 3.1.2. None is ever empty: the operator drops empty fields, which would be drift.
"""

from tuneyard.catalog.nim_cache import listed_name
from tuneyard.catalog.nim_operator import build_pull_secret
from tuneyard.catalog.objects import build_config_map, build_metadata, without_empty
from tuneyard.catalog.workflows_evaluator import EXECUTOR, NEMO, SERVES_EVALUATOR
from tuneyard.stack.model import Claim, Component, ExpectedSecret, Json, Need, Service, Stack

PORT = 8000
DATA_STORE_FINALIZER = "finalizer.nemodatastore.apps.nvidia.com"
DATA_STORE_SECRETS = {
    "datastoreConfigSecret": ("nemo-data-store-config", ("config_environment.sh", "assertions")),
    "datastoreInitSecret": ("nemo-data-store-init", ("configure_gitea.sh", "init_directory_structure.sh")),
    "datastoreInlineConfigSecret": (
        "nemo-data-store-inline-config",
        (
            "_generals_",
            "cache",
            "database",
            "metrics",
            "queue",
            "repository",
            "security",
            "server",
            "session",
        ),
    ),
    "giteaAdminSecret": ("nemo-data-store-admin", ("GITEA_ADMIN_USERNAME", "GITEA_ADMIN_PASSWORD")),
    "lfsJwtSecret": ("nemo-data-store-lfs-jwt", ("jwtSecret",)),
}
"""Field -> secret and its keys. NVIDIA's samples ship public passwords for these; they are never copied here."""


def build_nemo(stack: Stack, kind: str, name: str, spec: Json) -> Json:
    """A NeMo object with its image, its Service and its database."""
    repository, _, tag = stack.image(name, "image").rpartition(":")
    environment = stack.environment
    expose: Json = {"service": {"type": "ClusterIP", "port": PORT}}
    if environment.cluster.domain and environment.cluster.ingress:
        ingress = environment.cluster.ingress
        expose["router"] = {
            "hostDomainName": environment.cluster.domain,
            "ingress": {"ingressClass": ingress.class_name, "tlsSecretName": ingress.tls_secret},
        }
    common: Json = {
        "image": {
            "repository": repository,
            "tag": tag,
            "pullPolicy": "IfNotPresent",
            "pullSecrets": [environment.secrets.ngc_pull],
        },
        "replicas": 1,
        "expose": expose,
        "databaseConfig": build_database(stack, name),
        "metrics": {"enabled": True, "serviceMonitor": {"interval": "30s"}} if stack.has("metrics") else None,
    }
    return {
        "apiVersion": "apps.nvidia.com/v1alpha1",
        "kind": kind,
        "metadata": build_metadata(name, NEMO),
        "spec": without_empty({**common, **spec}),
    }


def build_database(stack: Stack, owner: str) -> Json:
    """The databaseConfig of a NeMo object."""
    database = stack.database(owner)
    return {
        "host": database.host,
        "port": database.port,
        "databaseName": database.name,
        "credentials": {"user": database.user, "secretName": database.secret, "passwordKey": "password"},
    }


def build_otel(stack: Stack) -> Json:
    """The otel of a NeMo object."""
    return {"enabled": True, "exporterOtlpEndpoint": stack.url("otel")}


def _data_store(stack: Stack) -> list[Json]:
    spec: Json = {
        "secrets": {field: secret for field, (secret, _) in DATA_STORE_SECRETS.items()},
        "pvc": {
            "create": True,
            "name": "nemo-data-store",
            "size": f"{stack.volume_gib('nemo-data-store', 50)}Gi",
            "storageClass": stack.storage_class(),
            "volumeAccessMode": "ReadWriteOnce",
        },
    }
    if "nemo-data-store" in stack.bucket_owners():
        bucket = stack.bucket("nemo-data-store")
        spec["objectStoreConfig"] = {
            "endpoint": bucket.endpoint.split("://")[1],
            "bucketName": bucket.name,
            "region": bucket.region,
            "ssl": bucket.endpoint.startswith("https://"),
            "serveDirect": False,
            "credentials": {
                "user": bucket.owner,
                "secretName": bucket.secret,
                "passwordKey": "AWS_SECRET_ACCESS_KEY",
            },
        }
    store = build_nemo(stack, "NemoDatastore", "nemo-data-store", spec)
    # The claim is the operator's, owned by this object: deleting the object would delete every data set.
    store["metadata"] = build_metadata("nemo-data-store", NEMO, keep=True)
    # Without it the operator adds it by an update, which loses `serveDirect: false`.
    store["metadata"]["finalizers"] = [DATA_STORE_FINALIZER]
    return [store]


def _entity_store(stack: Stack) -> list[Json]:
    spec = {"datastore": {"endpoint": stack.url("data-store")}}
    return [build_nemo(stack, "NemoEntitystore", "nemo-entity-store", spec)]


def _evaluator(stack: Stack) -> list[Json]:
    images = {
        key: stack.image("nemo-evaluator", key)
        for key in stack.pin("nemo-evaluator").images
        if key != "image"
    }
    spec = {
        "datastore": {"endpoint": f"{stack.url('data-store')}/v1/hf"},
        "entitystore": {"endpoint": stack.url("entity-store")},
        "vectorDB": {"endpoint": stack.url("vector-db")},
        "argoWorkflows": {"endpoint": stack.url(SERVES_EVALUATOR), "serviceAccount": EXECUTOR},
        "evaluationImages": images,
        "otel": build_otel(stack),
    }
    return [build_nemo(stack, "NemoEvaluator", "nemo-evaluator", spec)]


def _guardrails(stack: Stack) -> list[Json]:
    base = next(
        (model for model in stack.environment.models if f"model:{model.name}" in stack.providers), None
    )
    spec: Json = {
        "configStore": {"configMap": {"name": "nemo-guardrails-config"}},
        "nimEndpoint": {"baseURL": f"{stack.url(f'model:{base.name}')}/v1"} if base else None,
        "otel": build_otel(stack),
    }
    text = "models: []\n"
    if base:
        text = f"models:\n- type: main\n  engine: nim\n  model: {listed_name(stack, base)}\n"
    # At the root of the store a file of this very name adds models for every configuration, and nothing else is read there.
    config = build_config_map("nemo-guardrails-config", NEMO, {"config.yml": text})
    return [config, build_nemo(stack, "NemoGuardrail", "nemo-guardrails", spec)]


def _common_secrets(stack: Stack) -> list[ExpectedSecret]:
    return [build_pull_secret(stack, NEMO)]


def _data_store_secrets(stack: Stack) -> list[ExpectedSecret]:
    own = [
        ExpectedSecret(name, NEMO, keys, f"Data Store ({field})")
        for field, (name, keys) in DATA_STORE_SECRETS.items()
    ]
    return [*_common_secrets(stack), *own]


_CRD = Need("crd:nemo", "its object's kind")
_DATA = Need("data-store", "where data sets and adapters are")
_ENTITIES = Need("entity-store", "where models and data sets are registered")
_OTEL = Need("otel", "where it sends traces")

COMPONENTS = (
    Component(
        name="nemo-data-store",
        summary="NeMo Data Store: data sets, models and adapters, with the Hugging Face protocol",
        namespace=NEMO,
        provides=("data-store",),
        needs=lambda _: (_CRD,),
        objects=_data_store,
        services=lambda _: {"data-store": Service("nemo-data-store", PORT)},
        secrets=_data_store_secrets,
        claims=lambda stack: [Claim(stack.volume_gib("nemo-data-store", 50))],
        databases=("nemo-data-store",),
        buckets=("nemo-data-store",),
        names_bucket_user=True,
        keeps_data=True,
    ),
    Component(
        name="nemo-entity-store",
        summary="NeMo Entity Store: metadata of models and data sets",
        namespace=NEMO,
        provides=("entity-store",),
        needs=lambda _: (_CRD, _DATA),
        objects=_entity_store,
        services=lambda _: {"entity-store": Service("nemo-entity-store", PORT)},
        secrets=_common_secrets,
        databases=("nemo-entity-store",),
    ),
    Component(
        name="nemo-evaluator",
        summary="NeMo Evaluator: benchmarks and custom evaluations",
        namespace=NEMO,
        provides=("evaluator",),
        needs=lambda _: (
            _CRD,
            _DATA,
            _ENTITIES,
            _OTEL,
            Need("vector-db", "retrieval evaluations"),
            Need(SERVES_EVALUATOR, "it runs evaluations as workflows"),
        ),
        objects=_evaluator,
        services=lambda _: {"evaluator": Service("nemo-evaluator", PORT)},
        secrets=_common_secrets,
        databases=("nemo-evaluator",),
    ),
    Component(
        name="nemo-guardrails",
        summary="NeMo Guardrails: checks of what goes into a model and what comes out",
        namespace=NEMO,
        provides=("guardrails",),
        needs=lambda _: (_CRD, _OTEL),
        objects=_guardrails,
        services=lambda _: {"guardrails": Service("nemo-guardrails", PORT)},
        secrets=_common_secrets,
        databases=("nemo-guardrails",),
    ),
)
