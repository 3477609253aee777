# SPDX-License-Identifier: Apache-2.0
"""What is served: the base model and the adapters of the registry, and which of them were refused and why.

Follows the registry without a restart. A bad adapter is remembered by its digest, reported and left alone until it
changes; it never stops the server, and a name always answers with what the registry holds under it, or not at all.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tuneyard_server.registry import AdapterFiles, Scan

LOG = logging.getLogger("tuneyard.server")


class AdapterRefusedError(Exception):
    """The base model can't carry this adapter; the message says why."""


class AdapterHolder(Protocol):
    """The part of the engine that the catalog needs."""

    def load_adapter(self, files: AdapterFiles) -> str:
        """Loads it and returns the handle to generate with; raises AdapterRefusedError."""

    def drop_adapter(self, handle: str) -> None:
        """Frees it."""


@dataclass(frozen=True)
class Served:
    """A loaded adapter."""

    files: AdapterFiles
    handle: str
    """The engine's name for it; a name in the registry may hold characters that PEFT can't."""


@dataclass(frozen=True)
class Refused:
    """An adapter that was tried and is not served."""

    files: AdapterFiles
    message: str


@dataclass(frozen=True)
class Changes:
    """What brings the loaded adapters to what the registry holds."""

    drop: tuple[str, ...]
    load: tuple[AdapterFiles, ...]


def plan_changes(
    served: Mapping[str, str], refused: Mapping[str, str], found: Mapping[str, AdapterFiles]
) -> Changes:
    """Pure: `served` and `refused` are digests by name. A changed digest is dropped and loaded again."""
    drop = tuple(name for name, digest in served.items() if name not in found or found[name].digest != digest)
    load = tuple(
        files
        for name, files in found.items()
        if served.get(name) != files.digest and refused.get(name) != files.digest
    )
    return Changes(drop, load)


class Catalog:
    """Written by the worker thread alone; readers see whole mappings, as each change replaces them."""

    def __init__(self, base: str, holder: AdapterHolder) -> None:
        self.base = base
        self._holder = holder
        self.served: Mapping[str, Served] = {}
        self.refused: Mapping[str, Refused] = {}
        self.incomplete: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> list[str]:
        """Base model first, then the adapters."""
        return [self.base, *sorted(self.served)]

    def update(self, scan: Scan) -> None:
        """Loads, replaces and drops; one adapter's trouble is its own."""
        found = {files.name: files for files in scan.adapters}
        changes = plan_changes(
            {name: served.files.digest for name, served in self.served.items()},
            {name: refused.files.digest for name, refused in self.refused.items()},
            found,
        )
        self.refused = {
            name: refused
            for name, refused in self.refused.items()
            if name in found and found[name] == refused.files
        }
        for name in changes.drop:
            self._drop(name)
        for files in changes.load:
            self._load(files)
        if scan.incomplete != self.incomplete:
            for name, message in scan.incomplete:
                LOG.info("adapter %s is not whole, waiting: %s", name, message)
            self.incomplete = scan.incomplete

    def _drop(self, name: str) -> None:
        served = self.served[name]
        self.served = {other: value for other, value in self.served.items() if other != name}
        self._holder.drop_adapter(served.handle)
        LOG.info("adapter %s is gone: %s", name, served.files.digest)

    def _load(self, files: AdapterFiles) -> None:
        if files.name == self.base:
            self._refuse(files, "has the name of the base model; publish it under another")
            return
        try:
            handle = self._holder.load_adapter(files)
        except AdapterRefusedError as error:
            self._refuse(files, str(error))
            return
        self.served = {**self.served, files.name: Served(files, handle)}
        LOG.info("adapter %s is served: %s", files.name, files.digest)

    def _refuse(self, files: AdapterFiles, message: str) -> None:
        self.refused = {**self.refused, files.name: Refused(files, message)}
        LOG.warning("adapter %s is not served: %s", files.name, message)
