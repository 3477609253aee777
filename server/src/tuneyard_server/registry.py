# SPDX-License-Identifier: Apache-2.0
"""What lies in the adapter registry: complete adapters with their digests, and what is wrong with the others.

Publishers write under a name that begins with a dot and rename, but a copy by hand may be seen half-way: an adapter
counts only when its configuration is whole JSON and its weights are as long as their header says.
"""

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

from tuneyard_api.pod_contract import ADAPTER_CONFIG, ADAPTER_FILES, ADAPTER_WEIGHTS, published_digest

MAX_CONFIG_BYTES = 1 << 20
MAX_HEADER_BYTES = 100_000_000
"""Safetensors' own limit."""

Signature = tuple[int, ...]
"""Inode, size and modification time of both files: digests are computed again only when it changes."""


@dataclass(frozen=True)
class AdapterFiles:
    """A complete adapter on disk."""

    name: str
    path: Path
    digest: str
    """Of its two files; see `published_digest`."""
    created: int
    """Unix seconds of its newer file."""


@dataclass(frozen=True)
class Scan:
    """One look at the registry."""

    adapters: tuple[AdapterFiles, ...] = ()
    incomplete: tuple[tuple[str, str], ...] = ()
    """(folder, what is missing): no error, as it may be on its way."""


class IncompleteAdapterError(Exception):
    """The folder is no whole adapter, yet or at all."""


def check_whole(folder: Path) -> None:
    """Raises IncompleteAdapterError with what is missing."""
    config, weights = folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS
    for file in (config, weights):
        if not file.is_file():
            raise IncompleteAdapterError(f"no {file.name}")
    if config.stat().st_size > MAX_CONFIG_BYTES:
        raise IncompleteAdapterError(f"{ADAPTER_CONFIG} is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        json.loads(config.read_bytes())
    except (ValueError, RecursionError) as error:
        raise IncompleteAdapterError(f"{ADAPTER_CONFIG} is not whole JSON: {error}") from None
    size = weights.stat().st_size
    try:
        with weights.open("rb") as stream:
            (header_bytes,) = struct.unpack("<Q", stream.read(8))
            if header_bytes > min(size, MAX_HEADER_BYTES):
                raise IncompleteAdapterError(
                    f"{ADAPTER_WEIGHTS} has {size} bytes, its header alone {header_bytes}"
                )
            header = json.loads(stream.read(header_bytes))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        expected = 8 + header_bytes + max(ends, default=0)
    except (
        struct.error,
        ValueError,
        RecursionError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
    ) as error:
        raise IncompleteAdapterError(f"{ADAPTER_WEIGHTS} has no whole safetensors header: {error}") from None
    if size != expected:
        raise IncompleteAdapterError(f"{ADAPTER_WEIGHTS} has {size} of {expected} bytes")


@dataclass
class Registry:
    """The folder, looked at again and again."""

    root: Path
    _known: dict[str, tuple[Signature, AdapterFiles]] = field(default_factory=dict)

    def scan(self) -> Scan:
        """Every folder whose name does not begin with a dot; a registry that is not there yet is empty.

        Raises:
            OSError: the registry itself can't be read.
        """
        if not self.root.exists():
            return Scan()
        adapters: list[AdapterFiles] = []
        incomplete: list[tuple[str, str]] = []
        for folder in sorted(self.root.iterdir()):
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            try:
                adapters.append(self._look(folder))
            except IncompleteAdapterError as error:
                incomplete.append((folder.name, str(error)))
            except OSError as error:  # Removed between two looks, or not ours to read.
                incomplete.append((folder.name, f"{error.strerror or error}"))
        self._known = {a.name: self._known[a.name] for a in adapters}
        return Scan(tuple(adapters), tuple(incomplete))

    def _look(self, folder: Path) -> AdapterFiles:
        check_whole(folder)
        stats = [(folder / name).stat() for name in ADAPTER_FILES]
        signature = tuple(number for s in stats for number in (s.st_ino, s.st_size, s.st_mtime_ns))
        known = self._known.get(folder.name)
        if known and known[0] == signature:
            return known[1]
        created = int(max(s.st_mtime for s in stats))
        files = AdapterFiles(folder.name, folder, published_digest(folder), created)
        self._known[folder.name] = (signature, files)
        return files
