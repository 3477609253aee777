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

from tuneyard_trainer.fetch.certificates import untrusted
from tuneyard_trainer.fetch.limits import CHUNK_BYTES, MAX_BYTES, Download
from tuneyard_trainer.fetch.patience import patiently
from tuneyard_trainer.pod.failures import StageFailure, bad_input

_ATTEMPTS = 4
_PERMISSIONS = {
    "ListObjectsV2": "ListBucket",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
}
"""Permissions that are not named as their operations are."""
_AUTHORITIES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""Variables that name a file with certificate authorities; boto3 itself does not know the second, which all other clients do."""
_CHANGED = (412, 416)
"""Answers to a request for the rest of an object that has become another one, or a shorter one."""
_NOT_THERE = frozenset({"NoSuchKey", "NoSuchBucket", "404"})
_NOT_ALLOWED = frozenset(
    # The last one is what versitygw says, with status 404, of a key that it does not know.
    {"AccessDenied", "ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "XAdminUserNotFound"}
)
_PASSING = frozenset({"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable"})
"""Errors that pass by themselves, whatever their status: the first one comes with 400."""
_OTHER_REASONS: Mapping[str, tuple[FailureClass, str]] = {
    "InvalidObjectState": (FailureClass.DATA_MISSING, "the object is in an archive; try to restore it first"),
    "RequestTimeTooSkewed": (
        FailureClass.PERMISSION_DENIED,
        "the clocks of this node and of the store differ; try to set them",
    ),
}
"""Errors whose status says that something is forbidden, and that no key would help against."""
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
    download = Download(name, target, limit_bytes)
    version: dict[str, str] = {}
    with said_by_store(name, source.region):
        client = connect(source, environ, attempts=1)  # they are made here, by the rule of `patiently`

    def ask() -> None:
        rest = {"Range": f"bytes={download.size}-"} | version if download.size else {}
        try:
            with said_by_store(name, source.region):
                answer = client.get_object(Bucket=source.bucket, Key=source.key, **rest)
                version.update({"IfMatch": answer["ETag"]} if "ETag" in answer else {})
                chunks = answer["Body"].iter_chunks(CHUNK_BYTES)
                download.take(chunks, answer["ContentLength"], answer.get("ContentRange"))
        except StageFailure as failure:
            if not _is_changed(failure):
                raise
            download.begin_again()
            version.clear()
            raise StageFailure(
                FailureClass.UPSTREAM, f"{name}: the object changed while it was fetched"
            ) from failure.__cause__

    patiently(ask)


def _is_changed(failure: StageFailure) -> bool:
    """Whether the store no longer has the object that it began to send."""
    answer = getattr(failure.__cause__, "response", None) or {}
    return answer.get("ResponseMetadata", {}).get("HTTPStatusCode") in _CHANGED


@contextmanager
def said_by_store(name: str, region: str) -> Iterator[None]:
    """Turns errors of the store, or of the way to it, into a StageFailure about `name`."""
    try:
        from botocore import exceptions  # noqa: PLC0415  0.3 s, and only for data of this kind
        from urllib3.exceptions import HTTPError  # noqa: PLC0415
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
    except (exceptions.BotoCoreError, HTTPError) as error:
        raise untrusted(name, error) or StageFailure(
            FailureClass.UPSTREAM, f"{name}: the store can't be reached: {clip(str(error), 500)}"
        ) from error


def name_of(source: S3Object) -> str:
    """`s3://bucket/key`."""
    return f"s3://{source.bucket}/{source.key}"


def connect(place: S3Object | S3Prefix, environ: Mapping[str, str], attempts: int = _ATTEMPTS) -> Any:
    """A client of boto3 for the store, with the credentials and the certificate authorities of the environment.

    `attempts` is the number of requests, the first one included, until an error of the store counts.
    """
    import boto3  # noqa: PLC0415
    from botocore import UNSIGNED  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    settings = s3_client_settings(place.endpoint, place.region, environ, attempts=attempts)
    config = Config(**settings.config, **({} if settings.is_signed else {"signature_version": UNSIGNED}))
    authorities = next((environ[name] for name in _AUTHORITIES if environ.get(name)), None)
    return boto3.session.Session().client("s3", config=config, verify=authorities, **settings.client)


def _refused(name: str, region: str, answer: dict[str, Any], operation: str) -> StageFailure:
    code = str(answer.get("Error", {}).get("Code", ""))
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f"{name}: the store answers {status} {code}".rstrip()
    if code in _NOT_THERE:
        what = "bucket" if code == "NoSuchBucket" else "object"
        advice = "; try another bucket, or make this one first" if what == "bucket" else ""
        return StageFailure(FailureClass.DATA_MISSING, f"{said}: there is no such {what}{advice}")
    if code in _OTHER_REASONS:
        failure_class, reason = _OTHER_REASONS[code]
        return StageFailure(failure_class, f"{said}: {reason}")
    if code in _ELSEWHERE or status in {301, 307}:
        return bad_input(f"{said}: the bucket is not in region {region}; try s3.region or s3.endpoint")
    if code in _PASSING or status in {408, 429} or status >= 500:  # noqa: PLR2004
        return StageFailure(FailureClass.UPSTREAM, said)
    if status in {401, 403} or code in _NOT_ALLOWED:
        return StageFailure(
            FailureClass.PERMISSION_DENIED,
            f"{said}: try a secretRef whose keys are valid and have the permission"
            f" s3:{_PERMISSIONS.get(operation, operation)}",
        )
    return bad_input(said)
