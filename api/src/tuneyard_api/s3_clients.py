# SPDX-License-Identifier: Apache-2.0
"""The settings of all S3 clients: what publishes, what fetches data, and what reads a registry beside a server.

Pure values: boto3 is imported where they are used, as the contract imports pydantic and PyYAML alone. Credentials are
those of a Secret or none at all, never what a node or a home folder happens to hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuneyard_api.pod_contract import ENV_S3


@dataclass(frozen=True)
class S3ClientSettings:
    """Arguments for boto3."""

    client: Mapping[str, Any]
    """Arguments of `Session.client`, besides `config`."""
    config: Mapping[str, Any]
    """Arguments of `botocore.config.Config`."""
    is_signed: bool
    """Whether there are credentials; otherwise the signature version is `botocore.UNSIGNED`."""


def s3_client_settings(
    endpoint: str | None, region: str, environ: Mapping[str, str], *, attempts: int
) -> S3ClientSettings:
    """The settings for the store at `endpoint` (None: Amazon's), with the credentials in `environ`.

    `attempts` is the number of requests, the first one included, until an error of the store counts.
    """
    key, secret, session = (environ.get(name) or None for name in ENV_S3)
    return S3ClientSettings(
        client={
            "endpoint_url": endpoint,
            "region_name": region,
            "aws_access_key_id": key,
            "aws_secret_access_key": secret,
            "aws_session_token": session,
        },
        config={
            # Stores of one's own seldom have a DNS name for each bucket.
            "s3": {"addressing_style": "path" if endpoint else "auto"},
            "connect_timeout": 5,
            "read_timeout": 30,
            "retries": {"mode": "standard", "total_max_attempts": attempts},
            # Older stores refuse the checksums that Amazon's clients send since 2025; digests say more.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            **({"signature_version": "s3v4"} if key else {}),
        },
        is_signed=key is not None,
    )
