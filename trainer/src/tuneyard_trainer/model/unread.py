# SPDX-License-Identifier: Apache-2.0
"""Tensors of a base model that transformers does not read: full fine-tuning writes them through unchanged.

Such are the layers by which a model guesses several tokens at once, and buffers of older versions. Nothing trains them, and
servers read them; a tuned model without them would not be what its base is.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tuneyard_api.model_shape import INDEX, WEIGHTS, tensors_in, weight_files

_KEPT = "model-unread.safetensors"
_MAX_SHOWN = 3


def keep_unread(model: Any, base: Path, folder: Path) -> list[str]:
    """Adds to the weights in `folder` those tensors of `base` that `model` did not read; a warning if that can't be done.

    Where transformers writes names that the base model's files do not have, nobody can tell which tensor was read under
    which name: then nothing is added, and it is said.
    """
    before, written = set(tensors_in(base)), set(tensors_in(folder))
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    unread = sorted(before - written - tied)
    if not unread:
        return []
    if written - before:
        return [_lost(len(before), sorted(written - before))]
    _add(base, folder, unread)
    return []


def _lost(count: int, renamed: list[str]) -> str:
    return (
        f"transformers writes this model's weights under names that the base model's {count} tensors do not have, such as"
        f" {', '.join(renamed[:_MAX_SHOWN])}; tensors that it does not read, such as those of other parts of the model, are not"
        " in the result"
    )


def _add(base: Path, folder: Path, names: Iterable[str]) -> None:
    from safetensors import safe_open  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    wanted, kept = set(names), dict[str, Any]()
    index = base / INDEX
    for name in weight_files(index.read_bytes() if index.is_file() else None):
        with safe_open(base / name, framework="pt") as file:
            kept |= {key: file.get_tensor(key) for key in wanted & set(file.keys())}
    save_file(kept, folder / _KEPT, metadata={"format": "pt"})
    content = _index_of(folder)
    content["weight_map"] |= dict.fromkeys(kept, _KEPT)
    content["metadata"]["total_size"] += sum(tensor.nbytes for tensor in kept.values())
    (folder / INDEX).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _index_of(folder: Path) -> dict[str, Any]:
    """The index of the weights; a file without one gets another name, by which transformers reads the index instead."""
    if (folder / INDEX).is_file():
        content: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return content
    first = "model-00001-of-00001.safetensors"
    names = tensors_in(folder)
    size = (folder / WEIGHTS).stat().st_size
    (folder / WEIGHTS).rename(folder / first)
    with (folder / first).open("rb") as stream:
        size -= 8 + int.from_bytes(stream.read(8), "little")
    return {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(names, first)}
