# SPDX-License-Identifier: Apache-2.0
"""The Debian packages that real nodes need: containerd, runc and their dependencies."""

from __future__ import annotations

import os
import subprocess

from tuneyard_local.paths import state_root
from tuneyard_local.progress import Progress

PACKAGES = ("containerd", "runc", "containernetworking-plugins", "nftables", "iproute2", "mmdebstrap")


def missing_packages() -> list[str]:
    """Those of the packages that are not installed."""
    result = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *PACKAGES],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    installed = {line.split()[0] for line in result.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in PACKAGES if name not in installed]


def install_packages(names: list[str], progress: Progress) -> None:
    """Install packages by apt; they stay on the machine when the cluster goes."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    log = state_root() / "apt.log"
    progress.run("apt-get update", ["apt-get", "update", "-q"], log, env)
    words = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *names]
    progress.run(f"apt-get install {' '.join(names)}", words, log, env)
