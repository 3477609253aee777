# SPDX-License-Identifier: Apache-2.0
"""Fetches one object from any S3 store, and explains its refusals in terms of the job.

Credentials are those of the job's Secret or none at all: a job never uses what a node or a home folder happens to hold.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneyard_api.pod_contract import ENV_S3, FailureClass
from tuneyard_api.problems import clip
from tuneyard_api.remote_files import S3Object

from tuneyard_trainer.fetch.limits import CHUNK_BYTES, MAX_BYTES, check_size, write_chunks
from tuneyard_trainer.pod.failures import StageFailure, bad_input

_NOT_THERE = frozenset({"NoSuchKey", "NoSuchBucket", "404"})
_NOT_ALLOWED = frozenset({"AccessDenied", "ExpiredToken", "InvalidToken", "InvalidAccessKeyId"})
_ELSEWHERE = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)


def fetch_object(
    source: S3Object, target: Path, environ: Mapping[str, str], limit_bytes: int = MAX_BYTES
) -> None:
    """Writes the object to `target`.

    Raises:
        StageFailure: DataMissing, PermissionDenied, UpstreamUnavailable or BadInput.
    """
    try:
        from botocore import exceptions  # noqa: PLC0415  0.3 s, and only for data of this kind
    except ImportError:
        raise bad_input(
            f"{name_of(source)}: this image can't read from S3; try an image with tuneyard-trainer[data]"
        ) from None

    name = name_of(source)
    try:
        answer = _client(source, environ).get_object(Bucket=source.bucket, Key=source.key)
        check_size(name, answer["ContentLength"], limit_bytes)
        write_chunks(name, answer["Body"].iter_chunks(CHUNK_BYTES), target, limit_bytes)
    except exceptions.ClientError as error:
        raise _refused(name, source, error.response) from error
    except exceptions.ParamValidationError as error:
        raise bad_input(f"{name}: {clip(str(error), 500)}") from error
    except exceptions.BotoCoreError as error:
        raise StageFailure(
            FailureClass.UPSTREAM, f"{name}: the store can't be reached: {clip(str(error), 500)}"
        ) from error


def name_of(source: S3Object) -> str:
    """`s3://bucket/key`."""
    return f"s3://{source.bucket}/{source.key}"


def _client(source: S3Object, environ: Mapping[str, str]) -> Any:
    import boto3  # noqa: PLC0415
    from botocore import UNSIGNED  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    key, secret, session = (environ.get(variable) for variable in ENV_S3)
    config = Config(
        signature_version="s3v4" if key else UNSIGNED,
        # Self-hosted stores seldom have a DNS name for each bucket.
        s3={"addressing_style": "path" if source.endpoint else "auto"},
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 4},
        response_checksum_validation="when_required",
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=source.endpoint,
        region_name=source.region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=session,
        config=config,
    )


def _refused(name: str, source: S3Object, answer: dict[str, Any]) -> StageFailure:
    code = str(answer.get("Error", {}).get("Code", ""))
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f"{name}: the store answers {status} {code}".rstrip()
    if code in _NOT_THERE:
        what = "bucket" if code == "NoSuchBucket" else "object"
        return StageFailure(FailureClass.DATA_MISSING, f"{said}: there is no such {what}")
    if code in _ELSEWHERE or status in {301, 307}:
        return bad_input(f"{said}: the bucket is not in region {source.region}; try s3.region or s3.endpoint")
    if status in {401, 403} or code in _NOT_ALLOWED:
        return StageFailure(
            FailureClass.PERMISSION_DENIED,
            f"{said}: try a secretRef whose keys are valid and may read the object (s3:GetObject)",
        )
    if status in {408, 429} or status >= 500:  # noqa: PLR2004
        return StageFailure(FailureClass.UPSTREAM, said)
    return bad_input(said)
