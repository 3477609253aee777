# SPDX-License-Identifier: Apache-2.0
"""Writes versions into a registry as the publish stage does, without the trainer."""

import json
from pathlib import Path
from typing import Any

from tuneyard_api.pod_contract import ADAPTER_FILES
from tuneyard_api.registry import VERSION_FILE, StoredBase, Version, published_digest

DESCRIPTION = (
    "README.md",
    "metrics.jsonl",
    "prepare-report.json",
    "report.html",
    "report.md",
    "samples.jsonl",
)
"""tests/training/test_training_record.py holds this against what publish writes."""
TINY = StoredBase(repo="org/tiny", revision="v1", commit="c0ffee")


def write_adapter(folder: Path, weights: bytes = b"weights", base: StoredBase = TINY, **config: Any) -> Path:
    folder.mkdir(parents=True)
    said: dict[str, Any] = {"base_model_name_or_path": base.repo or base.name, "r": 8, "peft_type": "LORA"}
    if base.commit:
        said["revision"] = base.commit
    (folder / ADAPTER_FILES[0]).write_text(json.dumps(said | config))
    (folder / ADAPTER_FILES[1]).write_bytes(weights)
    return folder


def store_version(
    registry: Path, name: str, weights: bytes = b"weights", base: StoredBase = TINY, **fields: Any
) -> Version:
    """A version below `.store`, which no name points to yet."""
    new = write_adapter(registry / ".new", weights, base)
    version = Version(name=name, digest=published_digest(new), base=base, **fields)
    target = registry / version.path
    if target.exists():
        for file in new.iterdir():
            file.unlink()
        new.rmdir()
        return version
    (new / VERSION_FILE).write_bytes(version.encode())
    target.parent.mkdir(parents=True, exist_ok=True)
    new.rename(target)
    return version


def publish(
    registry: Path, name: str, weights: bytes = b"weights", base: StoredBase = TINY, **fields: Any
) -> Version:
    """A version that its name points to from now on."""
    version = store_version(registry, name, weights, base, **fields)
    link = registry / f".{name}.link"
    link.symlink_to(version.path)
    link.replace(registry / name)
    return version
