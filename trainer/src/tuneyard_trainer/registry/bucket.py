# SPDX-License-Identifier: Apache-2.0
"""Writes a registry in S3: first the files, which are read back and checked against the digest; last the pointer of the name.

VERSION_FILE is written when a version is complete, so a version without it is written again. The pointer is written on
the condition that it is still the one that was read, where the store knows conditions. Every publisher leaves a mark
first, so that nobody retires a version that is about to be named.
"""

import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Self

from pydantic import ValidationError
from tuneyard_api.places import RegistryRetention, S3Prefix
from tuneyard_api.pod_contract import FailureClass
from tuneyard_api.registry import (
    MARKS,
    MAX_JSON_BYTES,
    POINTER_SUFFIX,
    STORE,
    VERSION_FILE,
    PublishedDigest,
    Version,
    version_path,
)

from tuneyard_trainer.fetch.object_store import connect, said_by_store
from tuneyard_trainer.pod.failures import StageFailure
from tuneyard_trainer.registry.content import Content, after
from tuneyard_trainer.registry.retention import GRACE_SECONDS, Candidate, to_retire

_TRIES = 5
_CHUNK_BYTES = 1 << 20
_STAGING = "publishing"
"""Folder of the workspace in which the describing files are made."""
_LOST_RACE = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_NO_CONDITIONS = frozenset({"NotImplemented", "501"})
_MISSING = "no whole adapter"


@dataclass(frozen=True)
class BucketRegistry:
    """The registry below a prefix of a bucket."""

    place: S3Prefix
    client: Any
    """boto3's client of S3."""
    staging: Path

    @classmethod
    def of(cls, place: S3Prefix, environ: Mapping[str, str], workspace: Path) -> Self:
        """The registry, with the credentials of the environment."""
        with said_by_store(str(place), place.region):
            return cls(place, connect(place, environ), workspace / _STAGING)

    def publish(self, version: Version, content: Content, uid: str, *, replace: bool) -> str:
        """Let the name stand for this version; returns `s3://bucket/prefix/name`.

        Raises:
            StageFailure: what `content.admit` says; AdapterConflict, if the name stands for another version and `replace`
                is false, or if the stored version was altered; DataMissing, PermissionDenied or UpstreamUnavailable, if the
                store refuses.
        """
        for _ in range(_TRIES):
            found, tag = self._pointer(version.name)
            if found is not None and found.digest != version.digest and not replace:
                raise self._taken(version, found)
            content.admit(found)
            new = after(version, found)
            if uid:
                self._put(f"{version.path}/{MARKS}/{uid}", b"")
            self._store(new, content)
            if found is not None and found.digest != version.digest:
                self._note_that_it_is_left(found)
            is_pointed = (found is not None and found.digest == version.digest) or self._point(
                new, found, tag
            )
            if is_pointed and self._has(f"{version.path}/{VERSION_FILE}"):
                return self._called(version.name)
        raise StageFailure(
            FailureClass.UPSTREAM,
            f"{self._called(version.name)}: other jobs publish under this name at the same time (tried {_TRIES} times);"
            " try later, or another publish.adapterName",
        )

    def retire(self, name: str, retention: RegistryRetention, now: float) -> list[str]:
        """Remove earlier versions of a name; returns their digests in hex. `now` is Unix time in seconds.

        Raises:
            StageFailure: what the store refuses; running again goes on.
        """
        current, _ = self._pointer(name)
        earlier = [
            Candidate(digest, _left_at(objects), is_marked=_is_marked(objects, now))
            for digest, objects in self._versions(name).items()
            if current is None or current.digest != f"sha256:{digest}"
        ]
        return [digest for digest in to_retire(earlier, retention, now) if self._remove(name, digest, now)]

    def pack(self, name: str, digest: str, out: IO[bytes]) -> None:
        """Write the files of a version to `out` as tar; marks of publishers are the registry's own and stay.

        Raises:
            StageFailure: there is no such version, or what the store refuses.
        """
        folder = f"{version_path(name, digest)}/"
        names = [each for each in self._objects(folder) if not each.startswith(f"{MARKS}/")]
        if not names:
            raise StageFailure(FailureClass.DATA_MISSING, f"{self._called(folder)}: there is no such version")
        with tarfile.open(fileobj=out, mode="w|") as archive:
            for each in names:
                with self._said(f"{folder}{each}") as key:
                    answer = self.client.get_object(Bucket=self.place.bucket, Key=key)
                    entry = tarfile.TarInfo(each)
                    entry.size = answer["ContentLength"]
                    archive.addfile(entry, answer["Body"])

    def _store(self, version: Version, content: Content) -> None:
        """Upload the version if it is not stored yet, and check that its files have the digest."""
        is_there = self._has(f"{version.path}/{VERSION_FILE}")
        if not is_there:
            self._upload(version, content)
        found = self._digest(version)
        if found != version.digest:
            what = "was cut or altered after it was stored" if is_there else "was cut or altered on its way"
            raise StageFailure(
                FailureClass.ADAPTER_CONFLICT if is_there else FailureClass.UPSTREAM,
                f"{self._called(version.path)}: {what} (got {found}, expected {version.digest}); try removing the objects"
                " below this prefix, and the job again",
            )
        if not is_there:
            self._put(f"{version.path}/{VERSION_FILE}", version.encode())

    def _upload(self, version: Version, content: Content) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(parents=True)
        content.describe(self.staging)
        files = [*sorted(self.staging.iterdir()), *(content.files / name for name in version.files)]
        for path in files:
            with self._said(f"{version.path}/{path.name}") as key, path.open("rb") as source:
                self.client.upload_fileobj(source, self.place.bucket, key)
        shutil.rmtree(self.staging)

    def _digest(self, version: Version) -> str:
        """The digest of the stored files, or _MISSING."""
        digest = PublishedDigest()
        for name in sorted(version.files):
            with self._said(f"{version.path}/{name}") as key:
                try:
                    answer = self.client.get_object(Bucket=self.place.bucket, Key=key)
                except self.client.exceptions.NoSuchKey:
                    return _MISSING
                digest.add(name, answer["ContentLength"], answer["Body"].iter_chunks(_CHUNK_BYTES))
        return str(digest)

    def _pointer(self, name: str) -> tuple[Version | None, str]:
        """The version that the name points to, and the ETag of the pointer, if the store gives one.

        Raises:
            StageFailure: AdapterConflict, if the object is no pointer.
        """
        content, tag = self._get(f"{name}{POINTER_SUFFIX}")
        if content is None:
            return None, ""
        try:
            return Version.model_validate_json(content), tag
        except ValidationError:
            raise StageFailure(
                FailureClass.ADAPTER_CONFLICT,
                f"{self._called(name)}{POINTER_SUFFIX}: this object is not a pointer of a registry; try another"
                " publish.adapterName",
            ) from None

    def _point(self, version: Version, found: Version | None, tag: str) -> bool:
        """Write the pointer in place of the one that was found; False: another job was quicker."""
        condition = {"IfNoneMatch": "*"} if found is None else {"IfMatch": tag} if tag else {}
        with self._said(f"{version.name}{POINTER_SUFFIX}") as key:
            put = {"Bucket": self.place.bucket, "Key": key, "Body": version.encode()}
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

    def _note_that_it_is_left(self, version: Version) -> None:
        """Write VERSION_FILE again: its time says when another version took the name."""
        if self._has(f"{version.path}/{VERSION_FILE}"):
            self._put(f"{version.path}/{VERSION_FILE}", version.encode())

    def _remove(self, name: str, digest: str, now: float) -> bool:
        """Remove a version, VERSION_FILE first, after which it no longer counts; False: a job has come back to it."""
        folder = f"{STORE}/{name}/{digest}/"
        content, _ = self._get(f"{folder}{VERSION_FILE}")
        self._delete(f"{folder}{VERSION_FILE}")
        current, _ = self._pointer(name)
        objects = self._objects(folder)
        is_pointed = current is not None and current.digest == f"sha256:{digest}"
        if is_pointed or _is_marked(objects, now):
            if content is not None:
                self._put(f"{folder}{VERSION_FILE}", content)
            return False
        for rest in objects:
            self._delete(f"{folder}{rest}")
        return True

    def _versions(self, name: str) -> dict[str, dict[str, datetime]]:
        """The objects of each version, by its digest in hex."""
        versions: dict[str, dict[str, datetime]] = {}
        for key, modified in self._objects(f"{STORE}/{name}/").items():
            digest, _, rest = key.partition("/")
            versions.setdefault(digest, {})[rest] = modified
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
        return self._get(name)[0] is not None

    def _get(self, name: str) -> tuple[bytes | None, str]:
        """The content of a small object and its ETag; None: it is not there."""
        with self._said(name) as key:
            try:
                answer = self.client.get_object(Bucket=self.place.bucket, Key=key)
            except self.client.exceptions.NoSuchKey:
                return None, ""
            return answer["Body"].read(MAX_JSON_BYTES), answer.get("ETag", "")

    def _put(self, name: str, content: bytes) -> None:
        with self._said(name) as key:
            self.client.put_object(Bucket=self.place.bucket, Key=key, Body=content)

    def _delete(self, name: str) -> None:
        with self._said(name) as key:
            self.client.delete_object(Bucket=self.place.bucket, Key=key)

    @contextmanager
    def _said(self, name: str) -> Iterator[str]:
        """The key of something below the prefix; errors of the store about it become a StageFailure."""
        with said_by_store(self._called(name), self.place.region):
            yield f"{self.place.prefix}/{name}" if self.place.prefix else name

    def _called(self, name: str) -> str:
        return f"{self.place}/{name}"

    def _taken(self, version: Version, found: Version) -> StageFailure:
        by = f" of FineTuneJob {found.job.namespace}/{found.job.name}" if found.job else ""
        return StageFailure(
            FailureClass.ADAPTER_CONFLICT,
            f"{self._called(version.name)}: the name is taken by another adapter{by} (got {version.digest}, there is"
            f" {found.digest}); try another publish.adapterName, or publish.replace: true if the servers are to answer with"
            " this one from now on",
        )


def _left_at(objects: Mapping[str, datetime]) -> float:
    """The Unix time at which another version took the name; of an incomplete version, of its last object."""
    complete = objects.get(VERSION_FILE)
    return (complete or max(objects.values())).timestamp()


def _is_marked(objects: Mapping[str, datetime], now: float) -> bool:
    """Whether a job published it within GRACE_SECONDS, and may be about to let the name stand for it."""
    return any(
        name.startswith(f"{MARKS}/") and modified.timestamp() >= now - GRACE_SECONDS
        for name, modified in objects.items()
    )
