# SPDX-License-Identifier: Apache-2.0
"""Checks the files of a base model's weights by their headers, so that what can't be loaded is known without a GPU."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tuneyard_api.model_shape import (
    MAX_HEADER_BYTES,
    ModelShape,
    shape_of,
    tensors_in,
)
from tuneyard_api.pod_contract import FailureClass

from tuneyard_trainer.pod.failures import StageFailure, bad_input

_FEW_BITS = ("F8_", "F6_", "F4")
"""How kinds of numbers begin in which no weight is stored that was not made smaller."""
_PACKED = (
    ".qweight",
    ".weight_packed",
    ".weight_scale",
    ".weight_scale_inv",
    ".weight.absmax",
    ".weight.quant_map",
    "_proj_blocks",
    "_proj_scales",
)
"""How names of tensors end that formats of fewer bits put in the place of a weight, or beside it."""
_WHOLE_NUMBERS = ("I", "U")
"""How kinds of whole numbers begin: transformers would read such a weight as the numbers themselves, without their scale."""
_LFS = b"version https://git-lfs"


def check_pointer(called: str, file: Path) -> None:
    """The file is itself, and not what Git LFS leaves in its place.

    Raises:
        StageFailure: ModelMissing.
    """
    with file.open("rb") as stream:
        if stream.read(len(_LFS)) == _LFS:
            raise StageFailure(
                FailureClass.MODEL_MISSING,
                f"{called}: {file.name} is the pointer that Git LFS leaves and not the file; try `git lfs pull` there",
            )


def check_weights(called: str, files: list[Path], index: Mapping[str, str]) -> None:
    """Every file is a whole safetensors file that has its tensors of the index; reads no more than the headers.

    Raises:
        StageFailure: ModelMissing for a pointer of Git LFS and for a file that is cut, BadInput for what is no safetensors
            and for an index of other files.
    """
    for file in files:
        check_pointer(called, file)
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= MAX_HEADER_BYTES:
                raise bad_input(f"{called}: {file.name} is no safetensors file; try to fetch it again")
            header = stream.read(length)
        tensors = _tensors(header) if len(header) == length else {}
        expected = 8 + length + max((tensors or {}).values(), default=0)
        if tensors is None or size > expected:
            why = (
                "its header can't be read"
                if tensors is None
                else f"behind its tensors are {size - expected} bytes more"
            )
            raise bad_input(f"{called}: {file.name} is no safetensors file: {why}; try to fetch it again")
        if len(header) < length or size < expected:
            raise StageFailure(
                FailureClass.MODEL_MISSING,
                f"{called}: {file.name} is cut: it has {size} bytes, and its header needs {expected}; try to fetch it again",
            )
        _check_tensors(called, file, header)
        absent = sorted(name for name, place in index.items() if place == file.name and name not in tensors)
        if absent:
            raise bad_input(
                f"{called}: the index of the weights names {absent[0]} in {file.name}, which does not have it; try to fetch"
                " both of one revision"
            )


def _check_tensors(called: str, file: Path, header: bytes) -> None:
    """The tensors fill the file one behind the other, in kinds of numbers that can be trained."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        with safe_open(file, framework="numpy"):
            pass
    except SafetensorError as error:
        raise bad_input(
            f"{called}: {file.name} is no safetensors file: {error}; try to fetch it again"
        ) from None
    entries = [(name, entry) for name, entry in json.loads(header).items() if name != "__metadata__"]
    found = [entry["dtype"] for _, entry in entries if entry["dtype"].startswith(_FEW_BITS)]
    found += [name for name, _ in entries if name.endswith(_PACKED)]
    found += [f"{name} is {entry['dtype']}" for name, entry in entries if _is_of_whole_numbers(name, entry)]
    if found:
        raise bad_input(fewer_bits(called, found[0]))


def _is_of_whole_numbers(name: str, entry: Mapping[str, Any]) -> bool:
    """Whether a weight of rows and columns holds whole numbers; masks and positions, which older files have, may."""
    is_weight = name.endswith((".weight", "_proj")) and len(entry["shape"]) > 1
    return is_weight and str(entry["dtype"]).startswith(_WHOLE_NUMBERS)


def fewer_bits(called: str, kind: str) -> str:
    """Says that a model's weights are stored in a format in which nothing can be trained here."""
    return (
        f"{called}: its weights are stored in fewer bits ({kind}); try its revision in bfloat16, with"
        " model.quantization: nf4 if it must fit into less memory"
    )


def shape_in(folder: Path, config: Mapping[str, Any]) -> ModelShape | None:
    """The model's shape by config.json and the headers of its weights, which were checked; None if they do not tell it."""
    try:
        return shape_of(config, tensors_in(folder))
    except ValueError:
        return None


def check_loaded(folder: Path, missing: Collection[str], mismatched: Collection[str]) -> None:
    """The weights are those of the model: transformers would fill what is missing, or of another shape, with random numbers.

    `missing` and `mismatched` are names of the model's tensors, as transformers reports them.

    Raises:
        StageFailure: BadInput.
    """
    wrong = sorted(mismatched) or sorted(missing)
    if not wrong:
        return
    what = "have another shape than" if mismatched else "lack"
    named = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")  # noqa: PLR2004  named
    raise bad_input(
        f"model {folder}: the weights {what} {named} of the model that config.json describes; try all files of one revision"
    )


def _tensors(header: bytes) -> dict[str, int] | None:
    """The end of each tensor, in bytes behind the header; None if the header can't be read."""
    try:
        entries = json.loads(header)
        return {
            name: int(entry["data_offsets"][1]) for name, entry in entries.items() if name != "__metadata__"
        }
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return None
