# SPDX-License-Identifier: Apache-2.0
"""The paths of all files: the cache (may be deleted any time) and the state of clusters (must not)."""

from __future__ import annotations

import fcntl
import os
import re
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tuneyard_local.errors import ClusterError

REPOSITORY = Path(__file__).resolve().parents[3]
"""The repository that this (editable) package is installed from."""


def _xdg(variable: str, fallback: str) -> Path:
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / fallback


def cache_root() -> Path:
    """The folder of built parts, images and environments; deleting it costs only time."""
    return _xdg("XDG_CACHE_HOME", ".cache") / "tuneyard"


def state_root() -> Path:
    """The folder of the clusters that exist on this machine for this user."""
    return _xdg("XDG_STATE_HOME", ".local/state") / "tuneyard"


def script(name: str) -> Path:
    """A program that a Python package installed beside this interpreter, e.g. kubectl."""
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        raise ClusterError(f"{path} is missing; try: uv sync --inexact")
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, across processes; waits for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class ClusterFolder:
    """The private folder of one cluster; nothing of a cluster lies outside of it but what `down` undoes."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?", self.name):
            raise ClusterError(
                f"cluster name: 1 to 20 of a-z, 0-9 and '-', not at the ends (got {self.name!r}); try 'demo'"
            )

    @property
    def root(self) -> Path:
        """The folder itself."""
        return state_root() / "clusters" / self.name

    @property
    def lock(self) -> Path:
        """The lock that is held while the cluster is started or stopped."""
        return state_root() / "clusters" / f".{self.name}.lock"

    @property
    def record(self) -> Path:
        """The plan of the cluster."""
        return self.root / "cluster.json"

    @property
    def logs(self) -> Path:
        """The folder of the processes' logs."""
        return self.root / "logs"

    @property
    def processes(self) -> Path:
        """The records of the processes."""
        return self.root / "processes"

    @property
    def certificates(self) -> Path:
        """Keys and certificates."""
        return self.root / "pki"

    @property
    def volumes(self) -> Path:
        """The folders behind claims."""
        return self.root / "volumes"

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig of one user; the person's own is that of `admin`."""
        return self.root / "kubeconfigs" / user

    def node(self, name: str) -> Path:
        """The folder of one real node: containerd, kubelet, logs."""
        return self.root / name


def cluster_names() -> list[str]:
    """The names of the clusters that have a folder, up or half up."""
    clusters = state_root() / "clusters"
    return sorted(path.name for path in clusters.iterdir() if path.is_dir()) if clusters.is_dir() else []
