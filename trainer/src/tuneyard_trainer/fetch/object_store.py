# SPDX-License-Identifier: Apache-2.0
"""Asks any S3 store for objects, and explains its refusals in terms of the job.

Credentials are those of the job's Secret or none at all: a job never uses what a node or a home folder happens to hold.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuneyard_api.places import S3Prefix
from tuneyard_api.pod_contract import FailureClass
from tuneyard_api.problems import clip
from tuneyard_api.remote_files import S3Object
from tuneyard_api.s3_clients import s3_client_settings

from tuneyard_trainer.fetch.limits import CHUNK_BYTES, MAX_BYTES, check_size, write_chunks
from tuneyard_trainer.pod.failures import StageFailure, bad_input

_ATTEMPTS = 4
_PERMISSIONS = {
    "ListObjectsV2": "ListBucket",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
}
"""Permissions that are not named as their operations are."""
_NOT_THERE = frozenset({"NoSuchKey", "NoSuchBucket", "404"})
_NOT_ALLOWED = frozenset(
    # The last one is what versitygw says, with status 404, of a key that it does not know.
    {"AccessDenied", "ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "XAdminUserNotFound"}
)
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
    name = name_of(source)
    with said_by_store(name, source.region):
        answer = connect(source, environ).get_object(Bucket=source.bucket, Key=source.key)
        check_size(name, answer["ContentLength"], limit_bytes)
        write_chunks(name, answer["Body"].iter_chunks(CHUNK_BYTES), target, limit_bytes)


@contextmanager
def said_by_store(name: str, region: str) -> Iterator[None]:
    """Turns errors of the store, or of the way to it, into a StageFailure about `name`."""
    try:
        from botocore import exceptions  # noqa: PLC0415  0.3 s, and only for data of this kind
    except ImportError:
        raise bad_input(
            f"{name}: this image can't speak S3; try an image with tuneyard-trainer[data]"
        ) from None

    try:
        yield
    except exceptions.ClientError as error:
        raise _refused(name, region, error.response, error.operation_name) from error
    except exceptions.ParamValidationError as error:
        raise bad_input(f"{name}: {clip(str(error), 500)}") from error
    except exceptions.BotoCoreError as error:
        raise StageFailure(
            FailureClass.UPSTREAM, f"{name}: the store can't be reached: {clip(str(error), 500)}"
        ) from error


def name_of(source: S3Object) -> str:
    """`s3://bucket/key`."""
    return f"s3://{source.bucket}/{source.key}"


def connect(place: S3Object | S3Prefix, environ: Mapping[str, str]) -> Any:
    """A client of boto3 for the store, with the credentials of the environment."""
    import boto3  # noqa: PLC0415
    from botocore import UNSIGNED  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    settings = s3_client_settings(place.endpoint, place.region, environ, attempts=_ATTEMPTS)
    config = Config(**settings.config, **({} if settings.is_signed else {"signature_version": UNSIGNED}))
    return boto3.session.Session().client("s3", config=config, **settings.client)


def _refused(name: str, region: str, answer: dict[str, Any], operation: str) -> StageFailure:
    code = str(answer.get("Error", {}).get("Code", ""))
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f"{name}: the store answers {status} {code}".rstrip()
    if code in _NOT_THERE:
        what = "bucket" if code == "NoSuchBucket" else "object"
        advice = "; try another bucket, or make this one first" if what == "bucket" else ""
        return StageFailure(FailureClass.DATA_MISSING, f"{said}: there is no such {what}{advice}")
    if code in _ELSEWHERE or status in {301, 307}:
        return bad_input(f"{said}: the bucket is not in region {region}; try s3.region or s3.endpoint")
    if status in {401, 403} or code in _NOT_ALLOWED:
        return StageFailure(
            FailureClass.PERMISSION_DENIED,
            f"{said}: try a secretRef whose keys are valid and have the permission"
            f" s3:{_PERMISSIONS.get(operation, operation)}",
        )
    if status in {408, 429} or status >= 500:  # noqa: PLR2004
        return StageFailure(FailureClass.UPSTREAM, said)
    return bad_input(said)
