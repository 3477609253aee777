# SPDX-License-Identifier: Apache-2.0
"""Writes a download to a file, up to the size limit of a data set, in as many parts as it arrives in."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from tuneyard_api.pod_contract import FailureClass

from tuneyard_trainer.pod.failures import StageFailure, bad_input

MAX_BYTES = 16 * 2**30
"""Largest file that is downloaded. It is more than a prepare pod can hold in memory."""
CHUNK_BYTES = 2**20
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)$")


def check_size(name: str, size_bytes: int | None, limit: int) -> None:
    """Refuses a download whose declared size is too large.

    Raises:
        StageFailure: BadInput.
    """
    if size_bytes is not None and size_bytes > limit:
        raise bad_input(
            f"{name}: {size_bytes} bytes, but a file may have {limit}; try a part of it, or a claim (pvc)"
        )


class Download:
    """A file that arrives in one part, or in several where the connection breaks."""

    def __init__(self, name: str, target: Path, limit: int) -> None:
        """`name` is the file's in messages; `limit` its most bytes."""
        self._name, self._target, self._limit = name, target, limit
        self._digest = hashlib.sha256()
        self.size = 0
        """Bytes that are there."""
        self.is_resumed = False
        """Whether what is there came in several parts."""
        target.parent.mkdir(parents=True, exist_ok=True)

    @property
    def sha256(self) -> str:
        """SHA-256 of what is there, in hex."""
        return self._digest.hexdigest()

    def take(self, chunks: Iterable[bytes], length: int | None, part: str | None) -> None:
        """Writes what an answer brings: the rest of the file, or all of it.

        `length` is the answer's Content-Length in bytes; `part` its Content-Range, of an answer that is a part.

        Raises:
            StageFailure: BadInput, as soon as there are more bytes than the limit; UpstreamUnavailable, if the answer ends
                before its length, or is another part than the one that was asked for.
        """
        start = self._start_of(part)
        expected = None if length is None else start + length
        check_size(self._name, expected, self._limit)
        if start == 0:
            self.begin_again()
        self.is_resumed = start > 0
        with self._target.open("ab") as file:
            for chunk in chunks:
                check_size(self._name, self.size + len(chunk), self._limit)
                file.write(chunk)
                self._digest.update(chunk)
                self.size += len(chunk)
        if expected is not None and self.size < expected:
            raise StageFailure(
                FailureClass.UPSTREAM,
                f"{self._name}: the connection broke off after {self.size} of {expected} bytes",
            )

    def begin_again(self) -> None:
        """Forgets what is there."""
        self._target.write_bytes(b"")
        self._digest, self.size, self.is_resumed = hashlib.sha256(), 0, False

    def _start_of(self, part: str | None) -> int:
        """The first byte of an answer."""
        if part is None:
            return 0
        found = _RANGE.match(part)
        if found is None or int(found[1]) != self.size:
            had = self.size
            self.begin_again()
            raise StageFailure(
                FailureClass.UPSTREAM,
                f"{self._name}: the server sent another part than the one from byte {had} on ({part})",
            )
        return int(found[1])
