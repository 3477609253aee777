# SPDX-License-Identifier: Apache-2.0
"""S3: versitygw with a bucket and a user for each service that asks (ADR 16), an existing S3, or MinIO as it was."""

import hashlib

from tuneyard_api.pod_security import CONTAINER_SECURITY
from tuneyard_api.yaml_io import dump

from tuneyard.catalog.objects import KEPT, build_metadata
from tuneyard.stack.model import Bucket, Claim, Component, ExpectedSecret, Json, Need, Service, Stack

NAMESPACE = "data"
MINIO_SECRET = "minio-root"  # noqa: S105  a name
SERVER = "versitygw-server"
"""The chart's release, so its Deployment and its Service too."""
SERVER_SECRET = "versitygw-root"  # noqa: S105  a name
_PORT = 7070
_RESTRICTED: Json = {
    **CONTAINER_SECURITY,
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_SCRIPT = """set -eu
tries=0
until versitygw admin list-buckets; do
  tries=$((tries + 1))
  if [ "$tries" -ge 60 ]; then exit 1; fi
  sleep 5
done
ensure() {
  versitygw admin create-user --access "$2" --secret "$3" --role user ||
    versitygw admin update-user --access "$2" --secret "$3" --role user
  versitygw admin create-bucket --bucket "$1" --owner "$2" ||
    versitygw admin change-bucket-owner --bucket "$1" --owner "$2"
}
"""
"""Waits up to five minutes for the server, then makes what is missing and sets what is there; it can run any number of times."""


def _versitygw(stack: Stack) -> Json:
    """https://github.com/versity/versitygw/blob/main/chart/values.yaml, version 0.3.5."""
    repository, _, tag = stack.image("versitygw", "gateway").rpartition(":")
    return {
        "image": {"repository": repository, "tag": tag},
        # One pod has the volume; a second one beside it could not mount it.
        "strategy": {"type": "Recreate"},
        "auth": {"existingSecret": SERVER_SECRET},
        # Metadata in files: not every file system has extended attributes, and conditional requests need metadata.
        "gateway": {"backend": {"type": "posix", "args": "/mnt/data", "sidecarDir": "/mnt/metadata"}},
        "iam": {"enabled": True, "type": "internal"},
        "persistence": {
            "size": f"{stack.volume_gib(SERVER, 50)}Gi",
            "storageClassName": stack.storage_class(),
        },
        "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}},
    }


def build_script(buckets: tuple[Bucket, ...]) -> str:
    """The shell script that makes a user and a bucket for each; passwords come from SECRET_0, SECRET_1, ..."""
    lines = [f'ensure {bucket.name} {bucket.owner} "$SECRET_{at}"\n' for at, bucket in enumerate(buckets)]
    return _SCRIPT + "".join(lines)


def _environment_of_job(stack: Stack) -> list[Json]:
    def secret(variable: str, name: str, key: str) -> Json:
        return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}

    return [
        {"name": "ADMIN_ENDPOINT_URL", "value": stack.url("s3")},
        secret("ADMIN_ACCESS_KEY_ID", SERVER_SECRET, "rootAccessKeyId"),
        secret("ADMIN_SECRET_ACCESS_KEY", SERVER_SECRET, "rootSecretAccessKey"),
        *(
            secret(f"SECRET_{at}", bucket.secret, "AWS_SECRET_ACCESS_KEY")
            for at, bucket in enumerate(stack.buckets())
        ),
    ]


def _job(stack: Stack) -> list[Json]:
    """A batch/v1 Job with a name by content: a Job cannot be edited, and the former one is pruned."""
    container: Json = {
        "name": "buckets",
        "image": stack.image("versitygw", "gateway"),
        "command": ["/bin/sh", "-c", build_script(stack.buckets())],
        "env": _environment_of_job(stack),
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": _RESTRICTED,
    }
    pod: Json = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    spec: Json = {"backoffLimit": 6, "template": {"spec": pod}}
    digest = hashlib.sha256(dump(spec).encode()).hexdigest()[:8]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": build_metadata(f"versitygw-buckets-{digest}", NAMESPACE),
        "spec": spec,
    }
    return [job]


def _minio(stack: Stack) -> Json:
    """https://github.com/minio/minio/blob/master/helm/minio/values.yaml."""
    buckets = stack.buckets()
    values: Json = {
        "mode": "standalone",
        "replicas": 1,
        "existingSecret": MINIO_SECRET,
        "persistence": {
            "size": f"{stack.volume_gib('minio', 50)}Gi",
            "storageClass": stack.storage_class(),
            "annotations": dict(KEPT),
        },
        # The chart's default asks for 16 GiB.
        "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}},
        "buckets": [{"name": b.name, "policy": "none", "purge": False} for b in buckets],
        "policies": [
            {
                "name": b.owner,
                "statements": [
                    {"resources": [f"arn:aws:s3:::{b.name}", f"arn:aws:s3:::{b.name}/*"], "actions": ["s3:*"]}
                ],
            }
            for b in buckets
        ],
        "users": [
            {
                "accessKey": b.owner,
                "existingSecret": b.secret,
                "existingSecretKey": "AWS_SECRET_ACCESS_KEY",
                "policy": b.owner,
            }
            for b in buckets
        ],
        "metrics": {"serviceMonitor": {"enabled": stack.has("metrics")}},
    }
    if stack.environment.registries.mirror:
        values["image"] = {"repository": stack.mirrored("quay.io/minio/minio")}
        values["mcImage"] = {"repository": stack.mirrored("quay.io/minio/mc")}
    return values


def _users(stack: Stack) -> list[ExpectedSecret]:
    return [
        ExpectedSecret(
            b.secret,
            NAMESPACE,
            ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            f"bucket {b.name}; AWS_ACCESS_KEY_ID is {b.owner}",
        )
        for b in stack.buckets()
    ]


def _minio_secrets(stack: Stack) -> list[ExpectedSecret]:
    return [
        ExpectedSecret(MINIO_SECRET, NAMESPACE, ("rootUser", "rootPassword"), "MinIO's administrator"),
        *_users(stack),
    ]


def _server_secrets(_: Stack) -> list[ExpectedSecret]:
    keys = ("rootAccessKeyId", "rootSecretAccessKey")
    return [ExpectedSecret(SERVER_SECRET, NAMESPACE, keys, "versitygw's administrator")]


COMPONENTS = (
    Component(
        name=SERVER,
        summary="S3 in the cluster: versitygw, one pod with one volume",
        namespace=NAMESPACE,
        provides=("s3-server",),
        values=_versitygw,
        services=lambda _: {"s3-server": Service(SERVER, _PORT)},
        secrets=_server_secrets,
        claims=lambda stack: [Claim(stack.volume_gib(SERVER, 50))],
        keeps_data=True,
    ),
    Component(
        name="versitygw",
        summary="A bucket and a user for each service, in versitygw",
        namespace=NAMESPACE,
        provides=("s3",),
        needs=lambda _: (Need("s3-server", "it makes buckets and users there"),),
        objects=_job,
        services=lambda _: {"s3": Service(SERVER, _PORT)},
        secrets=lambda stack: [*_server_secrets(stack), *_users(stack)],
    ),
    Component(
        name="minio",
        summary="S3 in the cluster by MinIO, which is not maintained; for what has data in it",
        namespace=NAMESPACE,
        provides=("s3",),
        after=("metrics",),
        values=_minio,
        services=lambda _: {"s3": Service("minio", 9000)},
        secrets=_minio_secrets,
        claims=lambda stack: [Claim(stack.volume_gib("minio", 50))],
        keeps_data=True,
    ),
    Component(
        name="external-s3",
        summary="An S3 that exists already (externalS3)",
        provides=("s3",),
    ),
)
