# SPDX-License-Identifier: Apache-2.0
"""Writes a registry in a NeMo Data Store: a repository for each name, a commit for each version, an entity that lists it.

A commit holds all files of a version with its VERSION_FILE, or nothing of them; it is made on the condition that the one
before it is still the one that was read. What is there is read again after each commit, so an answer that is lost changes
nothing, and the entity is registered last: what the Entity Store lists is whole.
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError
from tuneyard_api.data_stores import ENV_DATA_STORE_TOKEN, ResolvedDataStore
from tuneyard_api.places import RegistryRetention
from tuneyard_api.pod_contract import FailureClass
from tuneyard_api.registry import VERSION_FILE, Version, hex_of

from tuneyard_trainer.fetch.data_store import host_of, hub_api, make_repository
from tuneyard_trainer.fetch.entity_store import register_model
from tuneyard_trainer.fetch.hub import answer_of
from tuneyard_trainer.pod.failures import StageFailure
from tuneyard_trainer.registry.content import Content, after

_TRIES = 5
_STAGING = "publishing"
"""Folder of the workspace in which the describing files are made."""
_LOST_RACE = frozenset({409, 412})
_CARD, _CARD_THERE = "README.md", "readme.md"
"""The hub's client has a hub check a card of the first name, for which a Data Store has no route."""
_ENTITY_DIGITS = 12
_HOST = host_of("dataStore.endpoint of the registry says which")


@dataclass(frozen=True)
class RepositoryRegistry:
    """The registry in one NeMo namespace."""

    place: ResolvedDataStore
    namespace: str
    token: str | None
    staging: Path

    @classmethod
    def of(
        cls, place: ResolvedDataStore, namespace: str, environ: Mapping[str, str], workspace: Path
    ) -> Self:
        """The registry, with the token of the environment."""
        return cls(place, namespace, environ.get(ENV_DATA_STORE_TOKEN) or None, workspace / _STAGING)

    def publish(self, version: Version, content: Content, _uid: str, *, replace: bool) -> str:
        """Let the name stand for this version; returns `hf://namespace/name@commit`.

        Raises:
            StageFailure: what `content.admit` says; AdapterConflict, if the name stands for another version and `replace`
                is false, or if the stored version was altered; PermissionDenied, ModelMissing or UpstreamUnavailable, if
                the services refuse.
        """
        repo = self._repo(version.name)
        self._ask(repo, lambda _: make_repository(self.place.endpoint, repo, "model", self.token))
        for _ in range(_TRIES):
            found, commit = self._current(repo)
            if found is not None and found.digest != version.digest and not replace:
                raise self._taken(repo, version.digest, found)
            content.admit(found)
            if found is None or found.digest != version.digest:
                self._commit(repo, after(version, found), content, found, commit)
                continue  # What is there now is read, whatever the answer was.
            self._check(repo, version, content, commit)
            register_model(self.place.entity_store, self._entity(version, commit), self.token)
            return f"hf://{repo}@{commit}"
        raise StageFailure(
            FailureClass.UPSTREAM,
            f"hf://{repo}: other jobs publish under this name at the same time (tried {_TRIES} times); try later, or another"
            " publish.adapterName",
        )

    def retire(self, _name: str, _retention: RegistryRetention, _now: float) -> list[str]:
        """Nothing: a Data Store keeps each commit, and so each version that the Entity Store lists."""
        return []

    def listed_as(self, version: Version) -> str:
        """The name by which the Entity Store lists a version, and a NIM serves it: another one for each version."""
        return f"{self._repo(version.name)}@{hex_of(version.digest)[:_ENTITY_DIGITS]}"

    def _repo(self, name: str) -> str:
        return f"{self.namespace}/{name}"

    def _current(self, repo: str) -> tuple[Version | None, str]:
        """The version that the name stands for, and the commit that it is in.

        Raises:
            StageFailure: AdapterConflict, if the repository holds something else than a version.
        """

        def ask(api: Any) -> tuple[bytes | None, str, list[str]]:
            seen = api.model_info(repo)
            names = [sibling.rfilename for sibling in seen.siblings or ()]
            if VERSION_FILE not in names:
                return None, str(seen.sha), names
            path = api.hf_hub_download(
                repo, VERSION_FILE, revision=seen.sha, cache_dir=self.staging / "found"
            )
            return Path(path).read_bytes(), str(seen.sha), names

        content, commit, names = self._ask(repo, ask)
        if content is None and not any(name.endswith(".safetensors") for name in names):
            return None, commit
        try:
            return Version.model_validate_json(content or b""), commit
        except ValidationError:
            raise StageFailure(
                FailureClass.ADAPTER_CONFLICT,
                f"hf://{repo}: this repository holds a model that no job has published; try another publish.adapterName",
            ) from None

    def _commit(
        self, repo: str, version: Version, content: Content, found: Version | None, parent: str
    ) -> None:
        """One commit with all files, unless another job was quicker."""
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(parents=True)
        content.describe(self.staging)
        (self.staging / VERSION_FILE).write_bytes(version.encode())
        files = [*sorted(self.staging.iterdir()), *(content.files / name for name in version.files)]
        former = set(found.files) - set(version.files) if found is not None else set()

        def ask(api: Any) -> None:
            from huggingface_hub import CommitOperationAdd, CommitOperationDelete  # noqa: PLC0415  0.3 s
            from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

            added = [
                CommitOperationAdd(_CARD_THERE if path.name == _CARD else path.name, path) for path in files
            ]
            removed = [CommitOperationDelete(name) for name in sorted(former)]
            try:
                api.create_commit(
                    repo, [*added, *removed], commit_message=version.digest, parent_commit=parent
                )
            except HfHubHTTPError as error:
                if error.response.status_code not in _LOST_RACE:
                    raise

        self._ask(repo, ask)
        shutil.rmtree(self.staging)

    def _check(self, repo: str, version: Version, content: Content, commit: str) -> None:
        """Hold what is stored against the files: the ids of a repository's files are digests of their content."""
        stored = {
            entry.path: entry
            for entry in self._ask(
                repo, lambda api: list(api.list_repo_tree(repo, revision=commit, recursive=True))
            )
        }
        for name in version.files:
            there, path = stored.get(name), content.files / name
            lfs = getattr(there, "lfs", None)
            found = getattr(lfs, "sha256", None) if lfs else getattr(there, "blob_id", None)
            if found != _id_of(path, is_large=lfs is not None):
                raise StageFailure(
                    FailureClass.ADAPTER_CONFLICT,
                    f"hf://{repo}@{commit}: {name} was cut or altered after it was stored (got {found or 'nothing'}); try"
                    " another publish.adapterName, or remove this repository",
                )

    def _entity(self, version: Version, commit: str) -> dict[str, Any]:
        """The body of POST /v1/models."""
        repo = self._repo(version.name)
        entity: dict[str, Any] = {
            "namespace": self.namespace,
            "name": self.listed_as(version).partition("/")[2],
            "base_model": self.place.base_model,
            "artifact": {"files_url": f"hf://{repo}@{commit}", "status": "upload_completed"},
            "custom_fields": {"tuneyard.io/digest": version.digest},
        }
        if version.is_adapter:
            entity["peft"] = {"finetuning_type": "lora"}
        if version.job is not None:
            entity["description"] = f"FineTuneJob {version.job.namespace}/{version.job.name}"
        return entity

    def _ask(self, repo: str, ask: Any) -> Any:
        """The answer of the Data Store about a repository; `ask` gets the hub's client."""

        def with_client() -> Any:
            with hub_api(self.place.endpoint, self.token) as api:
                return ask(api)

        what = f"model {repo} of the Data Store {self.place.endpoint}"
        return answer_of(what, FailureClass.MODEL_MISSING, with_client, _HOST)

    def _taken(self, repo: str, digest: str, found: Version) -> StageFailure:
        by = f" of FineTuneJob {found.job.namespace}/{found.job.name}" if found.job else ""
        return StageFailure(
            FailureClass.ADAPTER_CONFLICT,
            f"hf://{repo}: the name is taken by another adapter{by} (got {digest}, there is {found.digest}); try another"
            " publish.adapterName, or publish.replace: true if it is to stand for this one from now on",
        )


def _id_of(path: Path, *, is_large: bool) -> str:
    """What a repository calls a file: SHA-256 of its content by LFS, and git's id of a blob otherwise."""
    digest = hashlib.sha256() if is_large else hashlib.sha1(b"blob %d\0" % path.stat().st_size)  # noqa: S324  git's
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
