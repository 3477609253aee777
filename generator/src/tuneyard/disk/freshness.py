# SPDX-License-Identifier: Apache-2.0
"""Finds environments that need no rendering, because neither their inputs nor the written files have changed.

`.tuneyard/rendered/<env>.json` holds, after each render, a digest of everything that went in (the file, the generator's
own code, charts and folders of the repository, kept schemas), size and time of every file that came out, and the warnings.
As git's index does, it trusts size and time in nanoseconds; `render --check` never asks it.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from pathlib import Path

from tuneyard.findings import Finding, Severity

DEPLOYED = ("charts", "manifests/crds")
"""Folders of the repository that components deploy from."""


class Freshness:
    """The records of the last renders; one object for each call of `render`."""

    def __init__(self, root: Path, target: Path) -> None:
        self.root = root
        self.target = target
        self._common = hashlib.sha256(_digest_of_generator().encode())
        for folder in (*DEPLOYED, ".tuneyard/schemas"):
            for path in _files(root / folder):
                self._common.update(f"{path}\0".encode() + path.read_bytes())

    def unchanged(self, name: str, source: bytes) -> tuple[Finding, ...] | None:
        """The warnings of the last render if its result is still valid; None if a render is needed."""
        if b"jobsFolder" in source:  # jobs change without a render, and are checked at each
            return None
        try:
            kept = json.loads(self._path(name).read_text())
        except (OSError, ValueError):
            return None
        if kept.get("input") != self._digest(source) or kept.get("target") != str(self.target.resolve()):
            return None
        if _stamps(self.target, kept["files"]) != list(kept["files"].values()):
            return None
        return tuple(
            Finding(**{**row, "path": tuple(row["path"]), "severity": Severity(row["severity"])})
            for row in kept["warnings"]
        )

    def keep(self, name: str, source: bytes, paths: Iterable[str], warnings: Iterable[Finding]) -> None:
        """Note what was rendered just now. If the disk refuses, the next render only loses its short cut."""
        names = list(paths)
        stamps = dict(zip(names, _stamps(self.target, names), strict=True))
        kept = {
            "input": self._digest(source),
            "target": str(self.target.resolve()),
            "files": stamps,
            "warnings": [vars(finding) for finding in warnings],
        }
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".new").write_text(json.dumps(kept))
            path.with_suffix(".new").replace(path)
        except OSError:
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.root / ".tuneyard/rendered" / f"{name}.json"

    def _digest(self, source: bytes) -> str:
        digest = self._common.copy()
        digest.update(source)
        return digest.hexdigest()


def _stamps(root: Path, paths: Iterable[str]) -> list[list[int] | None]:
    """Size and time of each file; None for one that is not there or is a link."""
    found: list[list[int] | None] = []
    base = os.fspath(root)
    for path in paths:
        try:
            info = os.lstat(f"{base}/{path}")
        except OSError:
            found.append(None)
            continue
        found.append([info.st_size, info.st_mtime_ns, info.st_ino])
    return found


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


@cache
def _digest_of_generator() -> str:
    """The digest of the generator's and the contract's code, health checks and pins."""
    digest = hashlib.sha256()
    for package in ("tuneyard", "tuneyard_api"):
        with resources.as_file(resources.files(package)) as folder:
            for path in _files(folder):
                if path.suffix in (".py", ".lua", ".yaml"):
                    digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()
