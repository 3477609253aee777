# SPDX-License-Identifier: Apache-2.0
"""Checkpoints, from which an interrupted training resumes, with the same number of processes or another.

Each process writes its share of the rows of parameters and optimizer state, as safetensors; the first adds a
manifest with the step and everyone's digests, and renames the folder to its final name. A reader takes the rows
that it is to hold from whichever files have them. Learning rate, data order and random numbers are functions of
the step (see loop), so that nothing else needs keeping. Nothing is pickled.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tuneyard_api import durable

from tuneyard_trainer.model.world import World, is_spread, local_part, rows_held, rows_of_share
from tuneyard_trainer.pod.failures import Interrupted

_PARAMETERS, _OPTIMIZER, _MANIFEST = "parameters", "optimizer", "manifest.json"
_ROWS = "rows"
"""Key in a file's metadata: first row and end of each tensor, as JSON."""
_TORN = (OSError, ValueError, TypeError, KeyError, SafetensorError)

Parameters = Mapping[str, torch.nn.Parameter]


@dataclass(frozen=True)
class Manifest:
    """The description of a checkpoint."""

    lineage: str
    """Digest of the training: see workspace.same_work."""
    step: int
    """Optimizer steps done."""
    loss: float
    """Training loss of the last of them."""
    trained_tokens: int
    seconds: float
    """Seconds of training so far, over all attempts."""
    validations: dict[int, float]
    """Validation loss by step; that of `step` itself may come later."""
    digests: dict[str, str]
    """SHA-256 of each other file, hex."""

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """The manifest of a checkpoint's folder.

        Raises:
            OSError, ValueError, TypeError, KeyError: if there is no whole one.
        """
        content = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        validations = {int(step): loss for step, loss in content.pop("validations").items()}
        return cls(validations=validations, **content)


class Checkpoints:
    """The checkpoints of one training in a folder; every process must make the same calls."""

    def __init__(
        self, folder: Path, lineage: str, keep: int, world: World, warn: Callable[[str], None]
    ) -> None:
        """The `keep` newest ones stay; `warn` is called for those that can't be used."""
        self._folder, self._lineage, self._keep, self._world, self._warn = folder, lineage, keep, world, warn

    def save(
        self,
        parameters: Parameters,
        optimizer: torch.optim.Optimizer,
        *,
        step: int,
        loss: float,
        trained_tokens: int,
        seconds: float,
        validations: Mapping[int, float],
        best: int | None,
    ) -> None:
        """Writes the checkpoint of `step`, then removes the oldest beyond `keep`, but not that of step `best`.

        Raises:
            OSError: if this process could not write.
            Interrupted: if another one could not.
        """
        final = self._folder / f"step-{step:09d}"
        error: Exception | None = None
        digests: dict[str, str] | None = None
        with ExitStack() as stack:
            mine = None
            if self._world.is_first:
                shutil.rmtree(final, ignore_errors=True)
                mine = stack.enter_context(durable.folder_being_written(final))
            folder = self._world.of_first(mine) or final
            try:
                digests = self._write(folder, parameters, optimizer)
            except (OSError, SafetensorError) as failed:
                error = failed
            written = self._world.gather(digests)
            if error is not None:
                raise error
            if None in written:
                raise Interrupted(f"another process could not write the checkpoint of step {step}")
            if self._world.is_first:
                everyone = {name: digest for part in written if part for name, digest in part.items()}
                manifest = Manifest(
                    self._lineage, step, loss, trained_tokens, seconds, dict(validations), everyone
                )
                (folder / _MANIFEST).write_text(json.dumps(asdict(manifest)), encoding="utf-8")
        if self._world.is_first:
            self._remove_old(best)

    def restore_newest(self, parameters: Parameters, optimizer: torch.optim.Optimizer) -> Manifest | None:
        """Loads the newest valid checkpoint of this training; returns None if there is none."""
        for name in self._world.of_first([folder.name for folder in self._newest_first()]):
            manifest = self._checked(self._folder / name)
            if manifest is None:
                continue
            self._read_parameters(self._folder / name, parameters)
            self._read_optimizer(self._folder / name, parameters, optimizer)
            return manifest
        return None

    def restore_parameters(self, step: int, parameters: Parameters) -> bool:
        """Loads the parameters of `step`; returns False if its checkpoint is missing or invalid."""
        folder = self._folder / f"step-{step:09d}"
        if self._checked(folder) is None:
            return False
        self._read_parameters(folder, parameters)
        return True

    def _newest_first(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"), reverse=True)

    def _remove_old(self, best: int | None) -> None:
        kept = 0
        for folder in self._newest_first():
            is_ours = self._is_ours(folder)
            if is_ours and (kept < self._keep or folder.name == f"step-{best or 0:09d}"):
                kept += 1
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def _is_ours(self, folder: Path) -> bool:
        try:
            return Manifest.load(folder).lineage == self._lineage
        except _TORN:
            return False

    def _checked(self, folder: Path) -> Manifest | None:
        """The manifest, if it is of this training and no process found a file that is not what was written."""
        manifest, problem = None, None
        try:
            manifest = Manifest.load(folder)
            names = sorted(manifest.digests)[self._world.rank :: self._world.size]
            wrong = [name for name in names if _digest(folder / name) != manifest.digests[name]]
            problem = f"{wrong[0]} is not what was written" if wrong else None
        except _TORN as error:
            problem = str(error)
        found = next((each for each in self._world.gather(problem) if each is not None), None)
        if found is not None:
            self._warn(f"checkpoint {folder.name} is skipped: {found}")
            return None
        return manifest if manifest is not None and manifest.lineage == self._lineage else None

    def _write(
        self, folder: Path, parameters: Parameters, optimizer: torch.optim.Optimizer
    ) -> dict[str, str]:
        """Writes this process's two files; returns their digests by name."""
        state = {
            f"{name}|{key}": value
            for name, parameter in parameters.items()
            for key, value in optimizer.state.get(parameter, {}).items()
        }
        digests = {}
        for kind, tensors in ((_PARAMETERS, dict(parameters)), (_OPTIMIZER, state)):
            path = folder / f"{kind}-{self._world.rank:05d}-of-{self._world.size:05d}.safetensors"
            rows = {name: self._rows(tensor) for name, tensor in tensors.items()}
            content = {
                name: self._share(tensor.detach(), *rows[name]).cpu().contiguous()
                for name, tensor in tensors.items()
                if rows[name][0] < rows[name][1]
            }
            save_file(content, path, metadata={_ROWS: json.dumps(rows)})
            durable.sync_file(path)
            digests[path.name] = _digest(path)
        return digests

    def _rows(self, tensor: torch.Tensor) -> tuple[int, int]:
        """A number, such as the optimizer's count of steps, is the same everywhere: a single row."""
        return rows_of_share(tensor, self._world) if tensor.dim() else (0, 1)

    def _share(self, tensor: torch.Tensor, first: int, end: int) -> torch.Tensor:
        """This process's rows, of a tensor that it has whole too: then processes share the writing."""
        return local_part(tensor) if is_spread(tensor) or not tensor.dim() else tensor[first:end]

    def _read_parameters(self, folder: Path, parameters: Parameters) -> None:
        wanted = {name: rows_held(parameter, self._world) for name, parameter in parameters.items()}
        seen = set()
        with torch.no_grad():
            for name, at, part in _rows_of(folder, _PARAMETERS, wanted):
                local_part(parameters[name])[at : at + len(part)].copy_(part)
                seen.add(name)
        if missing := sorted(parameters.keys() - seen):
            raise ValueError(
                f"{folder}: valid, and yet without {', '.join(missing[:3])}: of another library?"
            )

    def _read_optimizer(self, folder: Path, parameters: Parameters, optimizer: torch.optim.Optimizer) -> None:
        optimizer.state.clear()
        wanted = {name: rows_held(parameter, self._world) for name, parameter in parameters.items()}
        is_fused = bool(optimizer.defaults.get("fused"))
        for full_name, at, part in _rows_of(folder, _OPTIMIZER, wanted):
            name, _, key = full_name.rpartition("|")
            state = optimizer.state[parameters[name]]
            if not part.dim():
                # The fused optimizer counts its steps on the device.
                state[key] = part.to(parameters[name].device) if is_fused else part
                continue
            if key not in state:
                state[key] = torch.zeros_like(parameters[name], requires_grad=False)
            local_part(state[key])[at : at + len(part)].copy_(part)


def _rows_of(
    folder: Path, kind: str, wanted: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, int, torch.Tensor]]:
    """The wanted rows of all tensors of a kind, piece by piece: name, first row counted from the wanted ones, rows."""
    for path in sorted(folder.glob(f"{kind}-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            rows = json.loads(file.metadata()[_ROWS])
            for name in file.keys():  # noqa: SIM118  no mapping
                shape = file.get_slice(name).get_shape()
                if not shape:
                    yield name, 0, file.get_tensor(name)
                    continue
                (first, end), (start, stop) = rows[name], wanted[name.partition("|")[0]]
                low, high = max(first, start), min(end, stop)
                if low < high:
                    yield name, low - start, file.get_slice(name)[low - first : high - first]
                else:
                    yield name, 0, torch.empty(0, *shape[1:])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
