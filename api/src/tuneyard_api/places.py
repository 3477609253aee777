# SPDX-License-Identifier: Apache-2.0
"""Places of files: a claim of the job's namespace, or a prefix of a bucket; and how long a registry keeps versions."""

from typing import Annotated

from pydantic import Field

from tuneyard_api.base import Contract, HttpUrl, ObjectName, VolumePath
from tuneyard_api.remote_files import BUCKET, REGION, SecretKey, SecretName


class ClaimSource(Contract):
    """A file or folder on a PersistentVolumeClaim of the job's namespace, mounted read-only."""

    claim_name: ObjectName
    """Name of the claim."""
    path: VolumePath | None = None
    """Path inside the claim; absent: its root."""

    def __str__(self) -> str:
        """`claim adapters, path team`."""
        return f"claim {self.claim_name}" + (f", path {self.path}" if self.path else "")


class S3Prefix(Contract):
    """A prefix of a bucket in any store that speaks S3."""

    bucket: Annotated[str, Field(min_length=3, max_length=63, pattern=BUCKET)]
    """Name of the bucket."""
    prefix: VolumePath | None = None
    """Beginning of the keys, without a slash at either end; absent: the whole bucket."""
    endpoint: HttpUrl | None = None
    """Address of the store, such as `http://versitygw-server.data:7070`; absent: Amazon's. Buckets are asked for by path."""
    region: Annotated[str, Field(min_length=1, max_length=63, pattern=REGION)] = "us-east-1"
    """Region that requests are signed for."""

    def is_same_place(self, other: "S3Prefix") -> bool:
        """Whether both are the same bucket and prefix of the same store."""
        return (self.endpoint, self.bucket, self.prefix) == (other.endpoint, other.bucket, other.prefix)

    def __str__(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}" if self.prefix else f"s3://{self.bucket}"


class S3Registry(S3Prefix):
    """A registry in S3."""

    secret_ref: SecretName
    """Secret of the job's namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and perhaps AWS_SESSION_TOKEN; reaches the publish pod alone."""


class RegistryRetention(Contract):
    """Earlier versions that a registry keeps when a job publishes under their name.

    A version is removed only if both numbers allow it; the current one never, and none within an hour of its last use.
    """

    keep_versions: Annotated[int, Field(ge=0, le=1000)]
    """Number of latest earlier versions that are kept. Example: `5`."""
    keep_days: Annotated[int, Field(ge=0, le=3650)]
    """Days that a version is kept after another one took its name. Example: `30`."""


class ModelStore(Contract):
    """A NeMo Data Store, where a training that a service carries leaves its result, or a publish pod."""

    url: HttpUrl
    """Address, without /v1."""
    entity_store: HttpUrl
    """Address of the Entity Store that lists what is there, without /v1."""
    namespace: str
    """NeMo namespace of the model."""
    token: SecretKey | None = None
    """Where the publish pod's token comes from."""

    def is_same_place(self, other: "ModelStore") -> bool:
        """Whether servers that read one of them find what is in the other one."""
        return (self.url, self.entity_store) == (other.url, other.entity_store)

    def __str__(self) -> str:
        """`hf://namespace`, as NeMo writes places in a Data Store."""
        return f"hf://{self.namespace}"


Registry = ClaimSource | S3Registry | ModelStore
