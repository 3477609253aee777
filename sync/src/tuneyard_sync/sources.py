# SPDX-License-Identifier: Apache-2.0
"""Where versions come from: a registry on a claim here, one in S3 in `bucket`; both say what they have in the same words."""

import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tuneyard_api.pod_contract import ADAPTER_FILES
from tuneyard_api.registry import Version, is_name, linked_digest, read_version, version_path


class RegistryError(Exception):
    """Raised when the registry, or one version of it, can't be read; the message is a sentence for people."""


Pointers = Mapping[str, Version | RegistryError]
"""The version that each name of the registry points to, or the reason why it can't be used."""


class Source(Protocol):
    """A registry that can be read."""

    def pointers(self) -> Pointers:
        """All names.

        Raises:
            RegistryError: the registry can't be read, which says nothing about its names.
        """

    def stored(self, name: str, digest: str) -> Version | None:
        """The version of a name with this digest, whatever the name points to; None: it is not kept any more.

        Raises:
            RegistryError: it can't be read.
        """

    def fetch(self, version: Version, folder: Path) -> None:
        """Copies ADAPTER_FILES of a version into a folder that is there.

        Raises:
            RegistryError: they can't be read.
            OSError: they can't be written.
        """


@dataclass
class FolderSource:
    """A registry on a claim that is mounted at `root`."""

    root: Path
    _computed: dict[str, tuple[tuple[int, ...], Version]] = field(default_factory=dict)
    """State and digest of each folder of a former release, by name."""

    def pointers(self) -> Pointers:
        """See `Source`."""
        try:
            names = sorted(path.name for path in self.root.iterdir() if is_name(path.name))
        except OSError as error:
            raise RegistryError(f"registry {self.root}: {_said(error)}") from None
        return {name: self._look(name) for name in names}

    def stored(self, name: str, digest: str) -> Version | None:
        """See `Source`."""
        folder = self.root / version_path(name, digest)
        try:
            return read_version(name, folder)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RegistryError(f"{folder}: {error}") from None

    def fetch(self, version: Version, folder: Path) -> None:
        """See `Source`."""
        stored = self._folder(version.name, version.digest)
        for name in ADAPTER_FILES:
            try:
                descriptor = os.open(stored / name, os.O_RDONLY | os.O_NOFOLLOW)
            except OSError as error:
                raise RegistryError(f"{stored / name}: {_said(error)}") from None
            with os.fdopen(descriptor, "rb") as source:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise RegistryError(f"{stored / name}: no regular file")
                with (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)

    def _look(self, name: str) -> Version | RegistryError:
        path = self.root / name
        try:
            return self._linked(name, path) if path.is_symlink() else self._compute(name, path)
        except FileNotFoundError as error:
            return RegistryError(f"{path}: holds no whole adapter: {error.filename} is missing")
        except OSError as error:
            return RegistryError(f"{path}: {_said(error)}")
        except (RegistryError, ValueError) as error:
            return RegistryError(f"{path}: {error}")

    def _linked(self, name: str, path: Path) -> Version:
        link = path.readlink().as_posix()
        digest = linked_digest(name, link)
        if digest is None:
            raise RegistryError(f"links to {link}, which is no version of {name}")
        version = read_version(name, path)
        if (version.name, version.digest) != (name, digest):
            raise RegistryError(f"the version says that it is {version.name} {version.digest}")
        return version

    def _compute(self, name: str, folder: Path) -> Version:
        """A folder of a former release is read as a whole, but only when its files have changed."""
        states = [(folder / file).stat() for file in ADAPTER_FILES]
        signature = tuple(number for s in states for number in (s.st_ino, s.st_size, s.st_mtime_ns))
        known = self._computed.get(name)
        if known is None or known[0] != signature:
            known = self._computed[name] = (signature, read_version(name, folder))
        return known[1]

    def _folder(self, name: str, digest: str) -> Path:
        stored = self.root / version_path(name, digest)
        return stored if stored.is_dir() else self.root / name


def _said(error: OSError) -> str:
    return error.strerror or str(error)
