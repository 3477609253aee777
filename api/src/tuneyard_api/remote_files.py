# SPDX-License-Identifier: Apache-2.0
"""Data files that prepare fetches from S3 or by URL, as jobs name them."""

from typing import Annotated

from pydantic import Field, StringConstraints

from tuneyard_api.base import Contract, HttpUrl, ObjectName
from tuneyard_api.pod_values import ConfigKey

BUCKET = r"^[a-z0-9][a-z0-9.-]+[a-z0-9]$"
DATA_KEY = r"^[^\x00-\x1f]*\.(jsonl|json|jsonl\.gz|json\.gz|parquet)$"
REGION = r"^[a-z0-9-]+$"
SHA256 = r"^[0-9a-f]{64}$"
DATA_URL = (
    r"^(https://[A-Za-z0-9.-]+|http://[a-z0-9-]+\.[a-z0-9-]+\.svc(\.cluster\.local)?)(:[0-9]{1,5})?"
    r"/[A-Za-z0-9._~!$&()*+,;=:@%/-]*\.(jsonl|json|jsonl\.gz|json\.gz|parquet)(\?[A-Za-z0-9._~!$&()*+,;=:@%/?-]*)?$"
)
"""TLS, unless it is a Service of the cluster; no user and password before the host."""


class SecretKey(Contract):
    """One key of a Secret in the job's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: ConfigKey = "token"
    """Key inside the Secret."""

    def __str__(self) -> str:
        """`hub-token/token`."""
        return f"{self.name}/{self.key}"


class SecretName(Contract):
    """A Secret in the job's namespace."""

    name: ObjectName
    """Name of the Secret."""


class S3Object(Contract):
    """An object in a bucket of any store that speaks S3."""

    bucket: Annotated[str, Field(min_length=3, max_length=63, pattern=BUCKET)]
    """Name of the bucket."""
    key: Annotated[str, Field(min_length=1, max_length=1024, pattern=DATA_KEY)]
    """Key of the object, ending in .jsonl, .json, either with .gz, or .parquet."""
    endpoint: HttpUrl | None = None
    """Address of the store, such as `http://versitygw-server.data:7070`; absent: Amazon's. Buckets are asked for by path."""
    region: Annotated[str, Field(min_length=1, max_length=63, pattern=REGION)] = "us-east-1"
    """Region that requests are signed for."""


class S3File(S3Object):
    """A file in a bucket."""

    secret_ref: SecretName | None = None
    """Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and perhaps AWS_SESSION_TOKEN; absent: asked for unsigned."""


class HttpFile(Contract):
    """A file behind a URL, held against its digest."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=DATA_URL)]
    """Address, ending in .jsonl, .json, either with .gz, or .parquet before any `?`: https, or http of a Service (`name.namespace.svc`)."""
    sha256: Annotated[str, Field(max_length=64, pattern=SHA256)]
    """SHA-256 of the file in lower-case hex, as `sha256sum` prints it."""
