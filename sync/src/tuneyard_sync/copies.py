# SPDX-License-Identifier: Apache-2.0
"""The folder that the server reads, in the registry's own layout: a version under its final name is whole and was checked.

A copy is written under a temporary name, held against the digest, given the base string of its server, synced and renamed.
A name moves to another version by one rename of a link. Whatever a kill leaves behind begins with a dot and goes.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tuneyard_api import durable
from tuneyard_api.pod_contract import ADAPTER_CONFIG
from tuneyard_api.registry import (
    STORE,
    StoredBase,
    Version,
    is_name,
    linked_digest,
    published_digest,
    read_config,
    version_path,
)

from tuneyard_sync.sources import RegistryError, Source

_BASE_KEY = "base_model_name_or_path"


@dataclass(frozen=True)
class Copies:
    """All versions in the server's folder."""

    root: Path
    base_model: str
    """String by which the server knows its base model."""

    def path(self, name: str, digest: str) -> Path:
        """The folder of a version, there or not."""
        return self.root / version_path(name, digest)

    def bring(self, version: Version, source: Source) -> bool:
        """The version is in the folder; False: it was before.

        Raises:
            RegistryError: it can't be read, or is not what its digest says.
            OSError: it can't be written.
        """
        target = self.path(version.name, version.digest)
        if target.is_dir():
            self._say_base(target)
            return False
        with durable.folder_being_written(target) as folder:
            source.fetch(version, folder)
            found = published_digest(folder)
            if found != version.digest:
                raise RegistryError(
                    f"{version.name}: the files have digest {found} (expected {version.digest}): they were cut or altered"
                    " after they were published; try to publish again"
                )
            self._check_base(version, folder)
            self._say_base(folder)
        return True

    def point(self, name: str, digest: str) -> bool:
        """The name stands for this version; False: it did before."""
        link = self.root / name
        if self.pointed(name) == digest:
            return False
        durable.write_link(link, version_path(name, digest))
        return True

    def pointed(self, name: str) -> str | None:
        """The digest that the name stands for."""
        link = self.root / name
        return linked_digest(name, link.readlink().as_posix()) if link.is_symlink() else None

    def names(self) -> list[str]:
        """Names that point to a version."""
        return sorted(path.name for path in self.root.iterdir() if is_name(path.name) and path.is_symlink())

    def unpoint(self, name: str) -> None:
        """The name is no longer there; its versions stay."""
        (self.root / name).unlink()
        durable.sync_folder(self.root)

    def left(self) -> list[Path]:
        """Folders of versions that no name stands for."""
        pointed = {name: self.pointed(name) for name in self.names()}
        kept = {self.path(name, digest) for name, digest in pointed.items() if digest is not None}
        return sorted(path for path in self._versions() if path not in kept)

    def remove(self, version: Path) -> None:
        """Removes a version; killed in the middle, it has no final name any more."""
        aside = version.with_name(f".{version.name}.tmp-gone")
        version.rename(aside)
        shutil.rmtree(aside)
        if not any(version.parent.iterdir()):
            version.parent.rmdir()

    def clean(self) -> None:
        """Removes what a kill has left behind; nothing else writes here."""
        self.root.mkdir(parents=True, exist_ok=True)
        for torn in [*self.root.glob(".*.tmp-*"), *(self.root / STORE).glob("*/.*")]:
            if torn.is_dir() and not torn.is_symlink():
                shutil.rmtree(torn)
            else:
                torn.unlink()

    def _versions(self) -> Iterable[Path]:
        return (self.root / STORE).glob("*/[!.]*")

    def _check_base(self, version: Version, folder: Path) -> None:
        """The pointer is not under the digest; the configuration is."""
        try:
            said = StoredBase.of_config(read_config(folder))
        except ValueError as error:
            raise RegistryError(f"{version.name}: {error}") from None
        if said.repo not in {version.base.repo, version.base.name}:
            raise RegistryError(
                f"{version.name}: {ADAPTER_CONFIG} names the base model {said} (expected {version.base}); try to publish"
                " again"
            )

    def _say_base(self, folder: Path) -> None:
        config = read_config(folder)
        if config.get(_BASE_KEY) != self.base_model:
            content = json.dumps(config | {_BASE_KEY: self.base_model}, indent=2, sort_keys=True) + "\n"
            durable.write_file(folder / ADAPTER_CONFIG, content.encode())
