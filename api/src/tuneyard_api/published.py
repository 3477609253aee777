# SPDX-License-Identifier: Apache-2.0
"""The digest of what a job publishes: over the names, lengths and contents of its files."""

import hashlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from tuneyard_api.pod_contract import ADAPTER_FILES


class PublishedDigest:
    """`sha256:` over name, length in bytes and content of each file; its text is the digest of what was added so far."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, name: str, length: int, blocks: Iterable[bytes]) -> None:
        """Add one file; files are added in the order of their names."""
        self._sha256.update(f"{name}\0{length}\0".encode())
        for block in blocks:
            self._sha256.update(block)

    def __str__(self) -> str:
        return f"sha256:{self._sha256.hexdigest()}"


def published_digest(folder: Path, names: Iterable[str] = ADAPTER_FILES) -> str:
    """The PublishedDigest of files in a folder.

    Raises:
        OSError: a file can't be read.
    """
    digest = PublishedDigest()
    for name in sorted(names):
        with (folder / name).open("rb") as file:
            digest.add(name, (folder / name).stat().st_size, iter(partial(file.read, 1 << 20), b""))
    return str(digest)
