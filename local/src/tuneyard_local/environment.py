# SPDX-License-Identifier: Apache-2.0
"""Third-party Python packages for pods, installed from a committed lock for the pods' Python 3.11.

The environments of PyTorch (5 GB) and vLLM are no image layers: each is once in the cache, as hard links into
uv's own, and pods mount it read-only by a claim.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tuneyard_local.errors import ClusterError
from tuneyard_local.paths import REPOSITORY, cache_root, locked
from tuneyard_local.progress import Progress, require_room

PODS_PYTHON = "3.11"
PODS_PLATFORM = "x86_64-manylinux_2_36"
"""Debian 12: glibc 2.36. The machine's own Python and libc do not matter."""
PURE_SOURCES = ("rouge-score",)
"""Packages that are published only as Python source, and may therefore be built."""
PYTORCH = ("--package", "tuneyard-trainer", "--extra", "torch")
PYTORCH_GIB = 9.0
"""GiB of disk for wheels in uv's cache and their unpacked files, when nothing is there yet."""


def _uv() -> list[str]:
    found = os.environ.get("UV") or shutil.which("uv")  # `uv run` sets this variable to its own path.
    return [found] if found else [sys.executable, "-m", "uv"]


def export_requirements(selection: Sequence[str], project: Path = REPOSITORY) -> str:
    """The locked requirements, with hashes, that the words of `uv export` select; none of our own members."""
    argv = [*_uv(), "export", "--frozen", "--no-emit-workspace", "--no-dev", "--no-header", "--no-annotate"]
    result = subprocess.run([*argv, *selection], cwd=project, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ClusterError(f"uv export: {result.stderr.strip()}")
    return result.stdout


def install_requirements(
    what: str, requirements: str, folder: Path, progress: Progress, *, compiles: bool = True
) -> None:
    """Install wheels for the pods' Python into a folder; the list is whole, so that none asks for another."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    listed = folder.with_suffix(".txt")
    listed.write_text(requirements)
    argv: list[str | Path] = [*_uv(), "pip", "install", "--target", folder, "--python-version", PODS_PYTHON]
    argv += ["--python-platform", PODS_PLATFORM, "--require-hashes", "--no-deps", "-r", listed]
    argv += ["--only-binary", ":all:", *(word for name in PURE_SOURCES for word in ("--no-binary", name))]
    if compiles and is_pods_python():
        argv += ["--compile-bytecode"]  # Imports of large packages take half the time with byte code.
    # Layers of an image have no times, so byte code that is compared with its source by time would never be read.
    env = {**os.environ, "UV_NO_CONFIG": "1", "PYC_INVALIDATION_MODE": "UNCHECKED_HASH"}
    progress.run(f"installing {what}", argv, folder.with_suffix(".log"), env)
    listed.unlink()


def is_pods_python() -> bool:
    """Whether this interpreter runs what is installed for pods, and writes byte code that they read."""
    return f"{sys.version_info.major}.{sys.version_info.minor}" == PODS_PYTHON


def find_python() -> str | None:
    """The interpreter outside of any virtual environment that can run what is installed for pods, on this machine."""
    if is_pods_python():
        return str(Path(sys.base_prefix) / "bin" / f"python{PODS_PYTHON}")
    return shutil.which(f"python{PODS_PYTHON}")


def build_environment(
    what: str,
    requirements: str,
    folder: Path,
    progress: Progress,
    *,
    disk_gib: float,
    finish: Callable[[Path], None] | None = None,
) -> Path:
    """A folder of the cache below `folder` with these requirements; made once for each list of them.

    `finish` is called with the folder before anyone sees it; with it, byte code is its business.
    """
    made = folder / hashlib.sha256(requirements.encode()).hexdigest()[:16]
    with locked(folder / ".lock"):
        if not made.is_dir():
            require_room(what, folder, disk_gib, 0.5)
            fresh = made.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            install_requirements(what, requirements, fresh, progress, compiles=finish is None)
            if finish:
                finish(fresh)
            fresh.rename(made)
    return made


def build_pytorch_environment(progress: Progress) -> Path:
    """The folder of the trainer's PyTorch environment for pods; made once for each state of the lock."""
    requirements = export_requirements(PYTORCH)
    folder = cache_root() / "pytorch"
    return build_environment(
        "PyTorch's environment (5 GB)", requirements, folder, progress, disk_gib=PYTORCH_GIB
    )
