# SPDX-License-Identifier: Apache-2.0
"""A registry in any store that speaks S3. A pointer is read again when the store lists another ETag for it, or none."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError
from tuneyard_api.pod_contract import ADAPTER_FILES, ENV_S3
from tuneyard_api.registry import MAX_JSON_BYTES, VERSION_FILE, Version, pointer_name, version_path
from tuneyard_api.s3_clients import s3_client_settings

from tuneyard_sync.settings import Settings
from tuneyard_sync.sources import Pointers, RegistryError

_ATTEMPTS = 2
"""The next pass tries again."""
_CHUNK_BYTES = 1 << 20
_MAX_SAID = 300


@dataclass
class BucketSource:
    """The registry below a prefix of a bucket."""

    client: Any
    """Client of boto3 for S3."""
    bucket: str
    prefix: str
    """Prefix of all keys: empty, or with a slash at the end."""
    _known: dict[str, tuple[str, Version | RegistryError]] = field(default_factory=dict)
    """ETag and content of the pointer of each name, as they were last read."""

    def pointers(self) -> Pointers:
        """See `Source`."""
        listed: dict[str, str] = {}
        with self._in_words(""):
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix, Delimiter="/"):
                for entry in page.get("Contents", ()):
                    name = pointer_name(entry["Key"].removeprefix(self.prefix))
                    if name is not None:
                        listed[name] = entry["ETag"]
        self._known = {name: self._look(name, tag) for name, tag in sorted(listed.items())}
        return {name: version for name, (_, version) in self._known.items()}

    def stored(self, name: str, digest: str) -> Version | None:
        """See `Source`."""
        key = f"{version_path(name, digest)}/{VERSION_FILE}"
        with self._in_words(key):
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)
            except self.client.exceptions.NoSuchKey:
                return None
            content = answer["Body"].read(MAX_JSON_BYTES)
        try:
            return Version.model_validate_json(content)
        except ValidationError:
            raise RegistryError(f"{self._called(key)}: this is no version") from None

    def fetch(self, version: Version, folder: Path) -> None:
        """See `Source`."""
        for name in ADAPTER_FILES:
            key = f"{version.path}/{name}"
            with self._in_words(key), (folder / name).open("wb") as target:
                answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)
                for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
                    target.write(chunk)

    def _look(self, name: str, tag: str) -> tuple[str, Version | RegistryError]:
        known = self._known.get(name)
        if known is not None and known[0] == tag != "":
            return known
        key = f"{name}.json"
        try:
            with self._in_words(key):
                answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)
                content = answer["Body"].read(MAX_JSON_BYTES)
            version = Version.model_validate_json(content)
        except RegistryError as error:
            return "", error
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(map(str, problem["loc"])) or "it"
            return tag, RegistryError(f"{self._called(key)}: {where}: {problem['msg']}")
        if version.name != name:
            return tag, RegistryError(f"{self._called(key)}: points from {version.name}")
        return tag, version

    def _called(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    @contextmanager
    def _in_words(self, key: str) -> Iterator[None]:
        """What the store or the way to it refuses, as a RegistryError."""
        try:
            yield
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
            code = error.response.get("Error", {}).get("Code", "")
            said = f"the store answers {status} {code}".rstrip()
            raise RegistryError(f"{self._called(key)}: {said}{_advice(str(status))}") from None
        except BotoCoreError as error:
            raise RegistryError(f"{self._called(key)}: {str(error)[:_MAX_SAID]}") from None


def bucket_source(settings: Settings, environ: Mapping[str, str]) -> BucketSource:
    """The registry of the settings, read with the credentials of the environment."""
    chosen = s3_client_settings(settings.s3_endpoint, settings.s3_region, environ, attempts=_ATTEMPTS)
    config = Config(**chosen.config, **({} if chosen.is_signed else {"signature_version": UNSIGNED}))
    client = boto3.session.Session().client("s3", config=config, **chosen.client)
    prefix = f"{settings.s3_prefix}/" if settings.s3_prefix else ""
    return BucketSource(client, str(settings.s3_bucket), prefix)


def _advice(status: str) -> str:
    if status in {"401", "403"}:
        return f"; try other credentials ({ENV_S3[0]}, {ENV_S3[1]}), or a policy that lets them list and read"
    return ""
