# SPDX-License-Identifier: Apache-2.0
"""Checks what each kind of cluster needs of the machine, and names what is missing in one line."""

from __future__ import annotations

import os
from pathlib import Path

from tuneyard_local.errors import ClusterError
from tuneyard_local.parts import is_supported_platform

GIT_BACKEND = Path("/usr/lib/git-core/git-http-backend")


def missing_for_control_plane() -> str | None:
    """Why a control plane can't run here, in one line; None when it can."""
    if not is_supported_platform():
        return "the parts are built for Linux on x86-64 only"
    return None


def missing_for_gitops() -> str | None:
    """Why Argo CD can't run here, in one line; None when it can."""
    if not GIT_BACKEND.exists():
        return f"git's program for smart HTTP is missing ({GIT_BACKEND}); try: apt-get install git"
    return missing_for_control_plane()


def missing_for_native() -> str | None:
    """Why real nodes can't run here, in one line; None when they can."""
    if not is_supported_platform():
        return "real nodes need Linux on x86-64"
    if os.geteuid() != 0:
        return "real nodes need root (namespaces, mounts, cgroups); try it as root"
    release = Path("/etc/os-release")
    if not release.exists() or "VERSION_CODENAME=bookworm" not in release.read_text():
        return "real nodes take containerd and runc from Debian 12 packages, and this is not Debian 12"
    return None


def require(missing: str | None) -> None:
    """Raise ClusterError with what is missing, if anything is."""
    if missing:
        raise ClusterError(missing)
