# SPDX-License-Identifier: Apache-2.0
"""What `tuneyard plan` reads: the model's configuration and the headers of its weights, and the training data if it is here."""

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from tuneyard_api.forecast.of_job import Data
from tuneyard_api.job import FineTuneJob
from tuneyard_api.known_shapes import known_config
from tuneyard_api.model_shape import (
    INDEX,
    MAX_HEADER_BYTES,
    ModelShape,
    ShapeUnknownError,
    Tensors,
    shape_of,
    tensors_in,
    tensors_of_header,
    weight_files,
)
from tuneyard_api.pod_contract import ResolvedJob, ResolvedSource

_FIRST = 1 << 20
"""Bytes of a file of weights that are asked for at once: most headers are shorter."""
_SECONDS = 20
_AT_ONCE = 8
_UNPACKED = frozenset({"dpo", "pTuning"})
"""Methods whose records are never packed."""


class UnreadableError(ValueError):
    """The model can't be read from here; the message says why and what to try."""


@dataclass(frozen=True)
class FoundShape:
    """The shape of the job's model, and where it was read."""

    name: str
    """The model, for people."""
    shape: ModelShape
    source: str
    """Where the shape was read, in words: `headers of 4 files on the hub`."""
    folder: Path | None = None
    """Its folder, if it is on this machine."""


def find_shape(job: FineTuneJob, folders: Mapping[str, Path], model: Path | None) -> FoundShape:
    """The shape of a job's model: from `model`, the folder of its claim, or the hub; else from the table of known ones.

    Raises:
        UnreadableError: if none of them has it.
    """
    hub, claim = job.spec.model.hugging_face, job.spec.model.pvc
    path = (claim.path or "") if claim else ""
    name = hub.repo if hub else path or (claim.claim_name if claim else "")
    folder = model or (folders[claim.claim_name] / path if claim and claim.claim_name in folders else None)
    if folder is not None:
        return _in_folder(name, folder)
    if hub is not None:
        try:
            return _on_hub(hub.repo, hub.revision or "main")
        except UnreadableError as unreadable:
            why = str(unreadable)
    else:
        why = f"claim {claim.claim_name if claim else ''} is not on this machine"
    config = known_config(name)
    if config is None:
        raise UnreadableError(
            f"spec.model: {why}, and {name} is not in the table of known models; try --model FOLDER with its config.json"
            + (f", or --claim {claim.claim_name}=FOLDER" if claim else "")
        )
    return FoundShape(name, shape_of(config), f"the table of known models, as {why}")


def _in_folder(name: str, folder: Path) -> FoundShape:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = tensors_in(folder)
        where = f"the headers of the weights in {folder}" if tensors else f"{folder}/config.json"
        return FoundShape(name or folder.name, shape_of(config, tensors or None), where, folder)
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{folder}: {error}; try a folder with config.json and *.safetensors") from None


def _counted(files: int, where: object) -> str:
    return f"the {'header' if files == 1 else 'headers'} of {files} {'file' if files == 1 else 'files'} in {where}"


def _on_hub(repo: str, revision: str) -> FoundShape:
    """Reads the shape on the hub by ranges of the files: kilobytes of each."""
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    base = f"{host}/{repo}/resolve/{quote(revision, safe='')}"
    try:
        config = json.loads(_get(f"{base}/config.json"))
        files = weight_files(_get_if_there(f"{base}/{INDEX}"))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            headers = list(pool.map(lambda file: _header_on_hub(f"{base}/{quote(file)}"), files))
        tensors = dict(pair for header in headers for pair in header.items())
        return FoundShape(repo, shape_of(config, tensors), _counted(len(files), f"{host}/{repo}"))
    except HTTPError as error:
        hint = "; a gated model needs HF_TOKEN" if error.code in {401, 403} else ""
        raise UnreadableError(f"{host} answers {error.code} for {repo}{hint}") from None
    except (URLError, OSError) as error:
        raise UnreadableError(f"{host} can't be reached ({getattr(error, 'reason', error)})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableError(f"{repo} on {host} can't be read ({error})") from None


def _header_on_hub(url: str) -> Tensors:
    start = _get(url, _FIRST)
    length = int.from_bytes(start[:8], "little")
    if not 0 < length <= MAX_HEADER_BYTES:
        raise ShapeUnknownError(f"{url} is no safetensors file")
    return tensors_of_header((start if len(start) >= 8 + length else _get(url, 8 + length))[8 : 8 + length])


def _get_if_there(url: str) -> bytes | None:
    try:
        return _get(url)
    except HTTPError as error:
        if error.code == 404:  # noqa: PLR2004
            return None
        raise


def _get(url: str, first: int | None = None) -> bytes:
    """The answer, or no more than its first bytes."""
    headers = {"User-Agent": "tuneyard"}
    if first is not None:
        headers["Range"] = f"bytes=0-{first - 1}"
    request = Request(url, headers=headers)  # noqa: S310  the hub's address
    if token := os.environ.get("HF_TOKEN"):
        # Not sent on to where the hub's files really lie.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    with urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
        content: bytes = answer.read(MAX_HEADER_BYTES if first is None else first)
        return content


def count_sequences(
    job: FineTuneJob, resolved: ResolvedJob, folders: Mapping[str, Path], tokenizer: Path | None
) -> Data | None:
    """The sequences of the training data as the prepare stage would make them; None if they can't be read here."""
    splits = dict(_local_splits(job, resolved, folders))
    if "training" not in splits or tokenizer is None or not (tokenizer / "tokenizer.json").is_file():
        return None
    try:
        from tuneyard_data.loading import Reading, hold_out, load_splits  # noqa: PLC0415  an extra, and NumPy
        from tuneyard_data.packing import pack  # noqa: PLC0415
        from tuneyard_data.pretrained import hide_pytorch  # noqa: PLC0415
        from tuneyard_data.records import DataFile  # noqa: PLC0415
        from tuneyard_data.refused import DataRefused  # noqa: PLC0415
        from tuneyard_data.tokenization import TextTokenizer  # noqa: PLC0415
    except ImportError:
        return None
    hide_pytorch()
    limit, data = resolved.training.max_sequence_length, resolved.dataset
    files = [DataFile(name, path, str(path)) for name, path in splits.items()]
    with TemporaryDirectory() as kept:
        reading = Reading(data.format, data.template, data.loss_on, limit, Path(kept))
        try:
            loaded = load_splits(reading, files, TextTokenizer(tokenizer), lambda _: None)
        except DataRefused as refused:
            raise UnreadableError(str(refused)) from None
        shown = hold_out(loaded, resolved)["training"]
        lengths = shown.kept_lengths()
    record = max(1, int(lengths.mean()))
    if not resolved.training.packing or job.spec.method in _UNPACKED:
        return Data(len(lengths) // shown.sides, int(lengths.max()), record)
    packed = pack(lengths, limit)
    longest = max(int(lengths[numbers].sum()) for numbers in packed)
    return Data(len(packed), longest, record)


def _local_splits(
    job: FineTuneJob, resolved: ResolvedJob, folders: Mapping[str, Path]
) -> Iterator[tuple[str, Path]]:
    for name in ("training", "validation", "test"):
        written, source = getattr(job.spec.dataset, name), getattr(resolved.dataset, name)
        if not isinstance(source, ResolvedSource) or written is None or written.pvc is None:
            continue
        folder: Any = folders.get(written.pvc.claim_name)
        path = folder / (written.pvc.path or "") if folder is not None else None
        if path is not None and path.is_file():
            yield name, path
