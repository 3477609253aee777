# SPDX-License-Identifier: Apache-2.0
"""A registry in S3: files first, read back and held against the digest, the pointer of the name last.

VERSION_FILE is written when a version is whole, so a version without it is written again. The pointer is put on the
condition that it is still what was read, where the store knows conditions. Whoever publishes leaves a mark first.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError
from tuneyard_api.places import RegistryRetention, S3Prefix
from tuneyard_api.pod_contract import FailureClass
from tuneyard_api.registry import MARKS, MAX_JSON_BYTES, POINTER_SUFFIX, STORE, VERSION_FILE, Version

from tuneyard_trainer.fetch.object_store import connect, said_by_store
from tuneyard_trainer.pod.failures import StageFailure
from tuneyard_trainer.registry.retention import GRACE_SECONDS

_TRIES = 5
_CHUNK_BYTES = 1 << 20
_DAY_SECONDS = 86_400
_STAGING = "publishing"
"""Folder of the workspace that files are made in before they are uploaded."""
_LOST_RACE = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_NO_CONDITIONS = frozenset({"NotImplemented", "501"})


@dataclass(frozen=True)
class BucketRegistry:
    """The registry below a prefix of a bucket."""

    place: S3Prefix
    client: Any
    """Of boto3, for S3."""
    staging: Path

    @classmethod
    def of(cls, place: S3Prefix, environ: Mapping[str, str], workspace: Path) -> Self:
        """With the credentials of the environment."""
        with said_by_store(str(place), place.region):
            return cls(place, connect(place, environ), workspace / _STAGING)

    def publish(self, version: Version, fill: Callable[[Path], None], uid: str, *, replace: bool) -> str:
        """The name points to this version, which `fill` writes into an empty folder if it is not there yet; returns where.

        Raises:
            StageFailure: AdapterConflict, if the name points to another version and may not leave it; what the store
                refuses.
        """
        for _ in range(_TRIES):
            found, tag = self._pointer(version.name)
            if found is not None and found.digest != version.digest and not replace:
                raise self._taken(version, found)
            if uid:
                self._put(f"{version.path}/{MARKS}/{uid}", b"")
            self._store(version, fill)
            if found is not None and found.digest != version.digest:
                self._put(f"{found.path}/{VERSION_FILE}", found.encode())  # its time says when it was left
            is_pointed = (found is not None and found.digest == version.digest) or self._point(version, tag)
            if is_pointed and self._has(f"{version.path}/{VERSION_FILE}"):
                return self._called(version.path)
        raise StageFailure(
            FailureClass.UPSTREAM,
            f"{self._called(version.name)}: others publish under this name again and again; try later, or another"
            " publish.adapterName",
        )

    def retire(self, name: str, retention: RegistryRetention, now: float) -> list[str]:
        """Removes earlier versions of a name; returns their digests in hex.

        `now` is Unix time. A version's age counts from when another one took its name.
        """
        current, _ = self._pointer(name)
        earlier = sorted(
            (
                (_left_at(objects), folder, objects)
                for folder, objects in self._versions(name).items()
                if current is None or folder != f"{current.path}/"
            ),
            key=lambda each: each[:2],
            reverse=True,
        )
        gone = []
        for left_at, folder, objects in earlier[retention.keep_versions :]:
            is_old = left_at <= now - retention.keep_days * _DAY_SECONDS
            if is_old and not _is_marked(objects, now) and self._remove(name, folder, now):
                gone.append(folder.rstrip("/").rpartition("/")[2])
        return gone

    def _store(self, version: Version, fill: Callable[[Path], None]) -> None:
        """The version's files are there, and are what the digest says."""
        is_there = self._has(f"{version.path}/{VERSION_FILE}")
        if not is_there:
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir(parents=True)
            fill(self.staging)
            for path in sorted(self.staging.iterdir()):
                with self._said(f"{version.path}/{path.name}") as key:
                    self.client.upload_file(str(path), self.place.bucket, key)
            shutil.rmtree(self.staging)
        found = self._digest(version)
        if found != version.digest:
            what = "was altered after it was published" if is_there else "was altered on its way"
            raise StageFailure(
                FailureClass.ADAPTER_CONFLICT if is_there else FailureClass.UPSTREAM,
                f"{self._called(version.path)}: {what} (digest {found}, expected {version.digest}); try to remove it, and"
                " the job again",
            )
        if not is_there:
            self._put(f"{version.path}/{VERSION_FILE}", version.encode())

    def _digest(self, version: Version) -> str:
        """As `published_digest`, of what the store gives back."""
        digest = hashlib.sha256()
        for name in sorted(version.files):
            with self._said(f"{version.path}/{name}") as key:
                answer = self.client.get_object(Bucket=self.place.bucket, Key=key)
                digest.update(f"{name}\0{answer['ContentLength']}\0".encode())
                for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
                    digest.update(chunk)
        return f"sha256:{digest.hexdigest()}"

    def _pointer(self, name: str) -> tuple[Version | None, str]:
        """What the name points to, and the ETag of that.

        Raises:
            StageFailure: AdapterConflict, if it is no pointer.
        """
        with self._said(f"{name}{POINTER_SUFFIX}") as key:
            try:
                answer = self.client.get_object(Bucket=self.place.bucket, Key=key)
            except self.client.exceptions.NoSuchKey:
                return None, ""
            content = answer["Body"].read(MAX_JSON_BYTES)
        try:
            return Version.model_validate_json(content), answer.get("ETag", "")
        except ValidationError:
            raise StageFailure(
                FailureClass.ADAPTER_CONFLICT,
                f"{self._called(key)}: is no pointer of a registry; try another publish.adapterName",
            ) from None

    def _point(self, version: Version, tag: str) -> bool:
        """The pointer is put; False: another one was quicker."""
        key = f"{version.name}{POINTER_SUFFIX}"
        condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        with self._said(key) as full:
            put = {"Bucket": self.place.bucket, "Key": full, "Body": version.encode()}
            try:
                self.client.put_object(**put, **condition)
            except self.client.exceptions.ClientError as error:
                code = error.response.get("Error", {}).get("Code")
                if code in _LOST_RACE:
                    return False
                if code not in _NO_CONDITIONS:
                    raise
                self.client.put_object(**put)
        return True

    def _remove(self, name: str, folder: str, now: float) -> bool:
        """VERSION_FILE goes first, so that the version is none any more; False: somebody has come back to it."""
        whole = f"{folder}{VERSION_FILE}"
        with self._said(whole) as key:
            try:
                answer = self.client.get_object(Bucket=self.place.bucket, Key=key)
            except self.client.exceptions.NoSuchKey:
                content = None
            else:
                content = answer["Body"].read(MAX_JSON_BYTES)
            self.client.delete_object(Bucket=self.place.bucket, Key=key)
        current, _ = self._pointer(name)
        objects = self._objects(folder)
        if (current is not None and folder == f"{current.path}/") or _is_marked(objects, now):
            if content is not None:
                self._put(whole, content)
            return False
        if objects:
            with self._said(folder) as key:
                self.client.delete_objects(
                    Bucket=self.place.bucket,
                    Delete={"Objects": [{"Key": f"{key}{name}"} for name in objects], "Quiet": True},
                )
        return True

    def _versions(self, name: str) -> dict[str, dict[str, datetime]]:
        """The folder of each version below the prefix, with a slash at its end, and its objects."""
        versions: dict[str, dict[str, datetime]] = {}
        store = f"{STORE}/{name}/"
        for key, modified in self._objects(store).items():
            folder, _, rest = key.partition("/")
            versions.setdefault(f"{store}{folder}/", {})[rest] = modified
        return versions

    def _objects(self, folder: str) -> dict[str, datetime]:
        """When each object below a folder was written, by the rest of its key."""
        found = {}
        with self._said(folder) as key:
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.place.bucket, Prefix=key):
                for entry in page.get("Contents", ()):
                    found[entry["Key"].removeprefix(key)] = entry["LastModified"]
        return found

    def _has(self, name: str) -> bool:
        with self._said(name) as key:
            answer = self.client.list_objects_v2(Bucket=self.place.bucket, Prefix=key, MaxKeys=1)
        return any(entry["Key"] == key for entry in answer.get("Contents", ()))

    def _put(self, name: str, content: bytes) -> None:
        with self._said(name) as key:
            self.client.put_object(Bucket=self.place.bucket, Key=key, Body=content)

    @contextmanager
    def _said(self, name: str) -> Iterator[str]:
        """The key of something below the prefix; what the store refuses of it is a StageFailure."""
        with said_by_store(self._called(name), self.place.region):
            yield f"{self.place.prefix}/{name}" if self.place.prefix else name

    def _called(self, name: str) -> str:
        return f"{self.place}/{name}"

    def _taken(self, version: Version, found: Version) -> StageFailure:
        by = f" of FineTuneJob {found.job.namespace}/{found.job.name}" if found.job else ""
        return StageFailure(
            FailureClass.ADAPTER_CONFLICT,
            f"{self._called(version.name)}: the name is taken by another adapter{by} (got {version.digest}, there is"
            f" {found.digest}); try another publish.adapterName, or publish.replace: true if its servers shall answer with"
            " this one",
        )


def _left_at(objects: Mapping[str, datetime]) -> float:
    """When another version took the name, Unix time; of a torn one, when it was written last."""
    whole = objects.get(VERSION_FILE)
    return (whole or max(objects.values())).timestamp()


def _is_marked(objects: Mapping[str, datetime], now: float) -> bool:
    """Whether a job has published it so lately that it may still point to it."""
    return any(
        name.startswith(f"{MARKS}/") and modified.timestamp() >= now - GRACE_SECONDS
        for name, modified in objects.items()
    )
