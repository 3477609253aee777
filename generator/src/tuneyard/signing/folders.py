# SPDX-License-Identifier: Apache-2.0
"""Digests of all that lies in the folders of a tree, on disk. Links are not followed: git keeps them as they are."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from tuneyard.findings import Finding, InputError
from tuneyard.signing.statement import NO_FILE, shown


def digests(root: Path, folders: Iterable[str]) -> dict[str, str]:
    """Path from the root -> SHA-256 of every file below the folders, or `NO_FILE` for what is no plain file.

    Raises:
        InputError: a folder that leaves the repository, or files that can't be read.
    """
    found: dict[str, str] = {}
    problems: list[Finding] = []
    for folder in folders:
        parts = Path(folder).parts
        if not parts or ".." in parts or Path(folder).is_absolute():
            problems.append(
                Finding("attestation", f"names {shown(folder)!r}, which is no folder of the repository")
            )
            continue
        above = [Path(*parts[: count + 1]) for count in range(len(parts))]
        if link := next((path for path in above if (root / path).is_symlink()), None):
            found[link.as_posix()] = NO_FILE
            continue
        for path in _below(root / folder, problems):
            found[path.relative_to(root).as_posix()] = _digest(path, problems)
    if problems:
        raise InputError(problems)
    return found


def _below(folder: Path, problems: list[Finding]) -> list[Path]:
    """All but folders, in no order; links to folders are among them."""
    if not folder.exists():
        return []
    if not folder.is_dir():
        return [folder]
    found: list[Path] = []

    def failed(error: OSError) -> None:
        problems.append(_unreadable(Path(error.filename), error))

    for here, names, files in os.walk(folder, onerror=failed):
        found += [Path(here, name) for name in files]
        found += [path for name in names if (path := Path(here, name)).is_symlink()]
    return found


def _digest(path: Path, problems: list[Finding]) -> str:
    if path.is_symlink() or not path.is_file():
        return NO_FILE
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        problems.append(_unreadable(path, error))
        return NO_FILE


def _unreadable(path: Path, error: OSError) -> Finding:
    return Finding("attestation", f"can't be read: {error.strerror or error}", file=shown(str(path)))
