# SPDX-License-Identifier: Apache-2.0
"""Experiment tracking: MLflow on PostgreSQL and S3, or an existing MLflow."""

from tuneyard.stack.model import Component, Json, Service, Stack

NAMESPACE, PORT = "mlflow", 5000


ADDRESSES = (f"[0-9]*.[0-9]*.[0-9]*.*[0-9]:{PORT}", f"[[]*]:{PORT}")
"""Patterns of any IPv4 or IPv6 address with our port: no name of a host on the internet begins and ends with a digit."""


def allowed_hosts(host: str) -> list[str]:
    """Hosts that MLflow 3 answers to; others get 403 (mlflow/server/security_utils.py of 3.15.1: equal, or by fnmatch).

    The Service's names as clients write them, with the port and without; pods by their address, as Prometheus asks;
    and this machine, which is what `kubectl port-forward` makes of a browser's request.
    """
    short = host.removesuffix(".cluster.local")
    names = (host, short, short.removesuffix(".svc"), host.partition(".")[0])
    forwarded = [f"{name}{port}" for name in ("localhost", "127.0.0.1") for port in ("", ":*")]
    return [*(f"{name}{port}" for name in names for port in ("", f":{PORT}")), *ADDRESSES, *forwarded]


def _mlflow(stack: Stack) -> Json:
    """https://community-charts.github.io/docs/charts/mlflow/usage (backendStore, artifactRoot, extraEnvVars)."""
    database, bucket = stack.database("mlflow"), stack.bucket("mlflow")
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
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(allowed_hosts(stack.host("tracking"))),
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


def tracking_url(stack: Stack) -> str | None:
    """The address of MLflow for clients in the cluster; None: nothing of the environment tracks."""
    if not stack.has("tracking"):
        return None
    if stack.providers["tracking"].name == "external-mlflow":
        return stack.environment.external_mlflow
    return stack.url("tracking")


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
