# SPDX-License-Identifier: Apache-2.0
"""Checks the files of a base model's weights by their headers, so that what can't be loaded is known without a GPU."""

import json
from pathlib import Path

from tuneyard_api.pod_contract import FailureClass

from tuneyard_trainer.pod.failures import StageFailure, bad_input

_LFS = b"version https://git-lfs"
_MAX_HEADER_BYTES = 100_000_000
"""As the library safetensors has it."""


def check_weights(called: str, files: list[Path]) -> None:
    """Every file is a whole safetensors file; reads no more than the headers.

    Raises:
        StageFailure: ModelMissing for a pointer of Git LFS and for a file that is cut, BadInput for what is no safetensors.
    """
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(len(_LFS))
            if head == _LFS:
                raise StageFailure(
                    FailureClass.MODEL_MISSING,
                    f"{called}: {file.name} is the pointer that Git LFS leaves and not the file; try `git lfs pull` there",
                )
            length = int.from_bytes(head[:8], "little")
            if not 0 < length <= _MAX_HEADER_BYTES:
                raise bad_input(f"{called}: {file.name} is no safetensors file; try to fetch it again")
            stream.seek(8)
            header = stream.read(length)
        expected = 8 + length + (_end_of_tensors(header) if len(header) == length else 0)
        if len(header) < length or size < expected:
            raise StageFailure(
                FailureClass.MODEL_MISSING,
                f"{called}: {file.name} is cut: it has {size} bytes, and its header needs {expected}; try to fetch it again",
            )


def _end_of_tensors(header: bytes) -> int:
    """Bytes of all tensors behind a header; 0 if it can't be read."""
    try:
        entries = json.loads(header)
        return max(
            (entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0
        )
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return 0
