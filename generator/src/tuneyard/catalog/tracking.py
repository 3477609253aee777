# SPDX-License-Identifier: Apache-2.0
"""Experiment tracking: MLflow on PostgreSQL and S3, or one that exists."""

from tuneyard.stack.model import Component, Json, Service, Stack

NAMESPACE, PORT = "mlflow", 5000


def _mlflow(stack: Stack) -> Json:
    """https://community-charts.github.io/docs/charts/mlflow/usage (backendStore, artifactRoot, extraEnvVars)."""
    database, bucket = stack.database("mlflow"), stack.bucket("mlflow")
    host = stack.host("tracking")
    values: Json = {
        "fullnameOverride": "mlflow",
        "service": {"type": "ClusterIP", "port": PORT},
        "backendStore": {
            "databaseMigration": True,
            "databaseConnectionCheck": True,
            "postgres": {
                "enabled": True,
                "host": database.host,
                "port": database.port,
                "database": database.name,
            },
            "existingDatabaseSecret": {
                "name": database.secret,
                "usernameKey": "username",
                "passwordKey": "password",
            },
        },
        "artifactRoot": {
            "proxiedArtifactStorage": True,
            "s3": {
                "enabled": True,
                "bucket": bucket.name,
                "existingSecret": {
                    "name": bucket.secret,
                    "keyOfAccessKeyId": "AWS_ACCESS_KEY_ID",
                    "keyOfSecretAccessKey": "AWS_SECRET_ACCESS_KEY",
                },
            },
        },
        "extraEnvVars": {
            "MLFLOW_S3_ENDPOINT_URL": bucket.endpoint,
            "AWS_DEFAULT_REGION": bucket.region,
            # MLflow 3 answers only to hosts that it is told.
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(
                f"{name}:{PORT}"
                for name in (host, host.removesuffix(".cluster.local"), f"mlflow.{NAMESPACE}")
            ),
        },
        # The chart would put it in a namespace `monitoring`, which nobody makes.
        "serviceMonitor": {"enabled": stack.has("metrics"), "namespace": NAMESPACE},
        "postgresql": {"enabled": False},
        "mysql": {"enabled": False},
        "minio": {"enabled": False},
    }
    if stack.environment.registries.mirror:
        server, tools = stack.mirrored("docker.io/burakince/mlflow"), stack.mirrored("docker.io/busybox")
        values["image"] = {"repository": server}
        values["initImages"] = {
            "dbchecker": {"repository": tools},
            "mlflowDbMigration": {"repository": server},
            "iniFileInitializer": {"repository": tools},
        }
    return values


COMPONENTS = (
    Component(
        name="mlflow",
        summary="Experiment tracking",
        namespace=NAMESPACE,
        provides=("tracking",),
        after=("metrics",),
        values=_mlflow,
        services=lambda _: {"tracking": Service("mlflow", PORT)},
        databases=("mlflow",),
        buckets=("mlflow",),
    ),
    Component(
        name="external-mlflow",
        summary="An MLflow that exists already (externalMlflow)",
        provides=("tracking",),
    ),
)
