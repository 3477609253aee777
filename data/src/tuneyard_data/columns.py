# SPDX-License-Identifier: Apache-2.0
"""Numbers of records, kept in a file: memory does not grow with the data set."""

import io
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike


class Column:
    """A row of equal width for each record, in the order in which they were read."""

    def __init__(self, dtype: DTypeLike, folder: Path | None, width: int = 1) -> None:
        """A row has `width` numbers.

        The file in `folder` is seen by nobody else and ends with this object; without a folder, rows stay in memory.
        """
        self._dtype, self._width = np.dtype(dtype), width
        self._file: Any = io.BytesIO() if folder is None else tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, rows: Any) -> None:
        """Adds the rows of the next records."""
        content = np.asarray(rows, dtype=self._dtype).tobytes()
        self._file.seek(0, io.SEEK_END)
        self._file.write(content)
        self._count += len(content) // self._row_bytes

    def array(self, start: int = 0, end: int | None = None) -> np.ndarray:
        """The rows from `start` to `end`: [rows], or [rows, width]; a copy in memory."""
        end = self._count if end is None else min(end, self._count)
        self._file.seek(start * self._row_bytes)
        found = np.frombuffer(self._file.read(max(0, end - start) * self._row_bytes), dtype=self._dtype)
        return found if self._width == 1 else found.reshape(-1, self._width)

    @property
    def _row_bytes(self) -> int:
        return self._dtype.itemsize * self._width
