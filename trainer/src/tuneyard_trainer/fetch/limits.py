# SPDX-License-Identifier: Apache-2.0
"""Writes a download to a file, up to the size limit of a data set."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tuneyard_trainer.pod.failures import bad_input

MAX_BYTES = 16 * 2**30
"""Largest file that is downloaded. It is more than a prepare pod can hold in memory."""
CHUNK_BYTES = 2**20


def check_size(name: str, size_bytes: int | None, limit: int) -> None:
    """Refuses a download whose declared size is too large.

    Raises:
        StageFailure: BadInput.
    """
    if size_bytes is not None and size_bytes > limit:
        raise bad_input(
            f"{name}: {size_bytes} bytes, but a file may have {limit}; try a part of it, or a claim (pvc)"
        )


def write_chunks(name: str, chunks: Iterable[bytes], target: Path, limit: int) -> tuple[int, str]:
    """Writes the chunks to `target`; returns the size in bytes and the SHA-256 in hex.

    Raises:
        StageFailure: BadInput, as soon as more than `limit` bytes have come.
    """
    digest, size = hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        for chunk in chunks:
            size += len(chunk)
            check_size(name, size, limit)
            digest.update(chunk)
            file.write(chunk)
    return size, digest.hexdigest()
