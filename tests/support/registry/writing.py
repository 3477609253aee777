# SPDX-License-Identifier: Apache-2.0
"""Adapters that the publish stage's own code writes into a registry, without a training."""

import json
from collections.abc import Callable
from pathlib import Path

from tuneyard_api.pod_contract import ADAPTER_FILES, published_digest
from tuneyard_api.registry import Publisher, StoredBase, Version

from support.registry.adapters import TINY

Fill = Callable[[Path], None]


def adapter(
    scratch: Path, name: str, weights: bytes = b"weights", job: str = "mine", base: StoredBase = TINY
) -> tuple[Version, Fill]:
    """A version of a job of this uid, and what writes its files."""
    config = {"base_model_name_or_path": base.repo or base.name, "r": 8, "peft_type": "LORA"}
    contents = {
        ADAPTER_FILES[0]: json.dumps(config | ({"revision": base.commit} if base.commit else {})).encode()
    }
    contents[ADAPTER_FILES[1]] = weights

    def fill(folder: Path) -> None:
        for file, content in contents.items():
            (folder / file).write_bytes(content)

    scratch.mkdir(parents=True, exist_ok=True)
    fill(scratch)
    publisher = Publisher(namespace="team", name=f"job-{job}", uid=job)
    digest = published_digest(scratch, ADAPTER_FILES)
    return Version(name=name, digest=digest, base=base, method="lora", rank=8, job=publisher), fill
