# SPDX-License-Identifier: Apache-2.0
"""What a result was measured on: the machine, and the versions of what was measured."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuneyard_local.parts import KUBERNETES

_REPOSITORY = Path(__file__).resolve().parents[1]


def machine() -> dict[str, Any]:
    """CPU, cores, memory in GiB, kernel."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in cpus if line.startswith("model name")), "unknown"
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memoryGiB": round(memory, 1),
        "kernel": platform.release(),
    }


def versions(*paths: str) -> dict[str, str]:
    """Kubernetes, kopf, Python and the commit, which is called dirty when something below `paths` is not committed."""

    def git(*args: str) -> str:
        words = ["git", *args]
        return subprocess.run(
            words, cwd=_REPOSITORY, capture_output=True, text=True, check=False
        ).stdout.strip()

    changed = git("status", "--porcelain", "--", *paths)
    return {
        "kubernetes": KUBERNETES,
        "kopf": version("kopf"),
        "python": platform.python_version(),
        "commit": git("rev-parse", "HEAD") + ("-dirty" if changed else ""),
    }
