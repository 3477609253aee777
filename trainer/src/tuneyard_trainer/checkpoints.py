# SPDX-License-Identifier: Apache-2.0
"""What an interrupted training goes on from.

Adapter and optimizer as safetensors, and a manifest with the step and the digests of both. Learning rate, data
order and random numbers are functions of the step (see loop), so that nothing else needs keeping. Only the folder
with a whole manifest counts; a torn one is passed over with a warning.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tuneyard_trainer import durable

_ADAPTER, _OPTIMIZER, _MANIFEST = "adapter.safetensors", "optimizer.safetensors", "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is of."""

    plan_digest: str
    step: int
    """Optimizer steps done."""
    trained_tokens: int
    seconds: float
    """Of training so far, over all attempts."""
    digests: dict[str, str]
    """SHA-256 of each other file, hex."""


class Checkpoints:
    """The checkpoints of one plan in a folder; `keep` newest ones stay."""

    def __init__(self, folder: Path, plan_digest: str, keep: int) -> None:
        self._folder, self._plan_digest, self._keep = folder, plan_digest, keep

    def save(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        *,
        step: int,
        trained_tokens: int,
        seconds: float,
    ) -> None:
        """Writes the checkpoint of `step`, then removes the oldest beyond `keep`."""
        final = self._folder / f"step-{step:09d}"
        shutil.rmtree(final, ignore_errors=True)
        with durable.folder_being_written(final) as folder:
            save_file(
                {name: p.detach().cpu().contiguous() for name, p in parameters.items()}, folder / _ADAPTER
            )
            save_file(_optimizer_tensors(parameters, optimizer), folder / _OPTIMIZER)
            digests = {name: _digest(folder / name) for name in (_ADAPTER, _OPTIMIZER)}
            manifest = Manifest(self._plan_digest, step, trained_tokens, seconds, digests)
            (folder / _MANIFEST).write_text(json.dumps(asdict(manifest)), encoding="utf-8")
        for old in self._folders()[self._keep :]:
            shutil.rmtree(old, ignore_errors=True)

    def restore_newest(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        warn: Callable[[str], None],
    ) -> Manifest | None:
        """Puts the newest valid checkpoint of this plan into place; None if there is none."""
        for folder in self._folders():
            try:
                manifest = self._read_manifest(folder)
                if manifest.plan_digest != self._plan_digest:
                    continue
                adapter, state = load_file(folder / _ADAPTER), load_file(folder / _OPTIMIZER)
            except (OSError, ValueError, TypeError, KeyError) as error:
                warn(f"checkpoint {folder.name} is passed over: {error}")
                continue
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(adapter[name])
            _restore_optimizer(parameters, optimizer, state)
            return manifest
        return None

    def _folders(self) -> list[Path]:
        """Newest first."""
        return sorted(self._folder.glob("step-*"), reverse=True)

    @staticmethod
    def _read_manifest(folder: Path) -> Manifest:
        """Checks the files against their digests.

        Raises:
            OSError, ValueError, TypeError: if it is torn.
        """
        manifest = Manifest(**json.loads((folder / _MANIFEST).read_text(encoding="utf-8")))
        for name, digest in manifest.digests.items():
            if _digest(folder / name) != digest:
                raise ValueError(f"{name} is not what was written")
        return manifest


def _optimizer_tensors(
    parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    return {
        f"{name}|{key}": tensor.detach().cpu().contiguous()
        for name, parameter in parameters.items()
        for key, tensor in optimizer.state.get(parameter, {}).items()
    }


def _restore_optimizer(
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, torch.Tensor],
) -> None:
    state: dict[int, dict[str, Any]] = {index: {} for index in range(len(parameters))}
    numbers = {name: index for index, name in enumerate(parameters)}
    for full_name, tensor in tensors.items():
        name, _, key = full_name.rpartition("|")
        state[numbers[name]][key] = tensor
    known = {index: values for index, values in state.items() if values}
    optimizer.load_state_dict({"state": known, "param_groups": optimizer.state_dict()["param_groups"]})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
