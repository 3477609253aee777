# SPDX-License-Identifier: Apache-2.0
"""S3: MinIO with a bucket, a user and a policy for each service that asks, or an existing S3."""

from tuneyard.catalog.objects import KEPT
from tuneyard.stack.model import Claim, Component, ExpectedSecret, Json, Service, Stack

NAMESPACE = "data"
ROOT_SECRET = "minio-root"  # noqa: S105  a name


def _minio(stack: Stack) -> Json:
    """https://github.com/minio/minio/blob/master/helm/minio/values.yaml."""
    buckets = stack.buckets()
    values: Json = {
        "mode": "standalone",
        "replicas": 1,
        "existingSecret": ROOT_SECRET,
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


def _secrets(stack: Stack) -> list[ExpectedSecret]:
    root = ExpectedSecret(ROOT_SECRET, NAMESPACE, ("rootUser", "rootPassword"), "MinIO's administrator")
    users = [
        ExpectedSecret(
            b.secret,
            NAMESPACE,
            ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            f"bucket {b.name}; AWS_ACCESS_KEY_ID is {b.owner}",
        )
        for b in stack.buckets()
    ]
    return [root, *users]


COMPONENTS = (
    Component(
        name="minio",
        summary="S3 in the cluster; a bucket and a user for each service",
        namespace=NAMESPACE,
        provides=("s3",),
        after=("metrics",),
        values=_minio,
        services=lambda _: {"s3": Service("minio", 9000)},
        secrets=_secrets,
        claims=lambda stack: [Claim(stack.volume_gib("minio", 50))],
        keeps_data=True,
    ),
    Component(
        name="external-s3",
        summary="An S3 that exists already (externalS3)",
        provides=("s3",),
    ),
)
