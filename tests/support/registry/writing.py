# SPDX-License-Identifier: Apache-2.0
"""Adapters that the publish stage's own code writes into a registry, without a training."""

import json
from pathlib import Path

from tuneyard_api.pod_contract import ADAPTER_FILES
from tuneyard_api.registry import Publisher, StoredBase, Version, published_digest
from tuneyard_trainer.registry.content import Content

from support.registry.adapters import DESCRIPTION, TINY


def adapter(
    folder: Path, name: str, weights: bytes = b"weights", job: str = "mine", base: StoredBase = TINY
) -> tuple[Version, Content]:
    """A version of a job of this uid, with its files in a folder."""
    config = {"base_model_name_or_path": base.repo or base.name, "r": 8, "peft_type": "LORA"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ADAPTER_FILES[0]).write_text(
        json.dumps(config | ({"revision": base.commit} if base.commit else {}))
    )
    (folder / ADAPTER_FILES[1]).write_bytes(weights)
    version = Version(
        name=name,
        digest=published_digest(folder),
        base=base,
        method="lora",
        rank=8,
        job=Publisher(namespace="team", name=f"job-{job}", uid=job),
    )
    return version, Content(folder, lambda target: write_description(target, version))


def write_description(folder: Path, version: Version) -> None:
    """All that a version holds beside the files of its digest, by the names that publish gives it."""
    for name in DESCRIPTION:
        (folder / name).write_text(f"{name} of {version.name}\n")
