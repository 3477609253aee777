# SPDX-License-Identifier: Apache-2.0
"""Programs of Debian packages, pinned by version and digest, unpacked into the cache and not installed.

apt-get fetches them from the archive that the machine is set to, as it does for nodes (`packages`).
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from tuneyard_local.errors import ClusterError
from tuneyard_local.paths import cache_root, locked
from tuneyard_local.progress import Progress


@dataclass(frozen=True)
class DebianPackage:
    """One package of one version, for one architecture."""

    name: str
    version: str
    sha256: str


PROMETHEUS = DebianPackage(
    "prometheus", "2.42.0+ds-5+deb12u1", "81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55"
)
"""The package with `prometheus` and `promtool`, which need only the C library."""


def package_program(package: DebianPackage, program: str, progress: Progress) -> Path:
    """The file of a program of the package, which is fetched and unpacked first if it is not there.

    Raises:
        ClusterError: this is no Debian, or the archive does not have this version, or something else under its name.
    """
    if missing := [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]:
        raise ClusterError(f"no {' and no '.join(missing)}: this is no Debian")
    folder = cache_root() / "debian" / f"{package.name}-{package.sha256[:16]}"
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            _unpack(package, folder, progress)
    return folder / "usr/bin" / program


def _unpack(package: DebianPackage, folder: Path, progress: Progress) -> None:
    fetched = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fetched, ignore_errors=True)
    (fetched / "root").mkdir(parents=True)
    log = fetched / "apt.log"
    # A machine that was just made has no lists of packages yet.
    script = 'cd "$0" && { apt-get download "$1" || { apt-get update -q && apt-get download "$1"; }; }'
    words = ["sh", "-c", script, str(fetched), f"{package.name}={package.version}"]
    progress.run(f"fetch Debian package {package.name} {package.version}", words, log)
    found = next(fetched.glob("*.deb"), None)
    digest = hashlib.sha256(found.read_bytes()).hexdigest() if found else "nothing"
    if found is None or digest != package.sha256:
        raise ClusterError(
            f"the archive's {package.name} {package.version} is not the pinned one (got {digest}, expected {package.sha256});"
            " try another version in local/src/tuneyard_local/debian.py"
        )
    progress.run(f"unpack {package.name}", ["dpkg-deb", "-x", str(found), str(fetched / "root")], log)
    (fetched / "root").rename(folder)
    shutil.rmtree(fetched)
