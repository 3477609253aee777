# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL: an existing server, or a CloudNativePG cluster with a database and a role for each service."""

from tuneyard.catalog.objects import build_metadata
from tuneyard.stack.model import URL_SAFE, Claim, Component, ExpectedSecret, Json, Need, Service, Stack

NAMESPACE = "data"


def _operator(stack: Stack) -> Json:
    """https://github.com/cloudnative-pg/charts/blob/main/charts/cloudnative-pg/README.md."""
    values: Json = {"crds": {"create": True}, "monitoring": {"podMonitorEnabled": stack.has("metrics")}}
    if stack.environment.registries.mirror:
        values["image"] = {"repository": stack.mirrored("ghcr.io/cloudnative-pg/cloudnative-pg")}
    return values


def _instances(stack: Stack) -> int:
    return 1 if stack.environment.sizing == "small" else 3


def _cluster(stack: Stack) -> list[Json]:
    """postgresql.cnpg.io/v1 Cluster and Database, https://cloudnative-pg.io/documentation/current/cloudnative-pg.v1/."""
    databases = stack.databases()
    cluster: Json = {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": build_metadata("postgres", NAMESPACE, keep=True),
        "spec": {
            "instances": _instances(stack),
            "imageName": stack.image("postgres", "postgres"),
            "storage": {
                "size": f"{stack.volume_gib('postgres', 10)}Gi",
                "storageClass": stack.storage_class(),
            },
            "monitoring": {"enablePodMonitor": stack.has("metrics")},
            "managed": {
                "roles": [
                    {"name": d.user, "ensure": "present", "login": True, "passwordSecret": {"name": d.secret}}
                    for d in databases
                ]
            },
        },
    }
    if not databases:
        del cluster["spec"]["managed"]
    return [cluster, *(_database(stack, d.owner, d.name, d.user) for d in databases)]


def _database(stack: Stack, owner: str, name: str, user: str) -> Json:
    spec: Json = {
        "name": name,
        "owner": user,
        "cluster": {"name": "postgres"},
        "databaseReclaimPolicy": "retain",
    }
    if stack.has("vector-db") and stack.providers["vector-db"].name == owner == "pgvector":
        spec["extensions"] = [{"name": "vector", "ensure": "present"}]
    metadata = build_metadata(owner, NAMESPACE, keep=True)
    return {"apiVersion": "postgresql.cnpg.io/v1", "kind": "Database", "metadata": metadata, "spec": spec}


def _secrets(stack: Stack) -> list[ExpectedSecret]:
    return [
        ExpectedSecret(
            d.secret,
            NAMESPACE,
            ("username", "password"),
            f"database role {d.user}; {URL_SAFE}",
            "kubernetes.io/basic-auth",
        )
        for d in stack.databases()
    ]


COMPONENTS = (
    Component(
        name="cloudnative-pg",
        summary="Operator for PostgreSQL",
        namespace="cnpg-system",
        provides=("crd:postgres",),
        after=("metrics",),
        values=_operator,
        keeps_data=True,
    ),
    Component(
        name="postgres",
        summary="One PostgreSQL cluster; a database and a role for each service",
        namespace=NAMESPACE,
        provides=("postgres",),
        needs=lambda _: (Need("crd:postgres", "its Cluster and Database objects"),),
        objects=_cluster,
        services=lambda _: {"postgres": Service("postgres-rw", 5432, "postgresql")},
        secrets=_secrets,
        claims=lambda stack: [Claim(stack.volume_gib("postgres", 10) * _instances(stack))],
        keeps_data=True,
    ),
    Component(
        name="external-postgres",
        summary="A PostgreSQL that exists already (externalPostgres)",
        provides=("postgres",),
    ),
)
