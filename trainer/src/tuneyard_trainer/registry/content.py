# SPDX-License-Identifier: Apache-2.0
"""The files of a version before they are in a registry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tuneyard_api.registry import Version


def _admit_all(_: Version | None) -> None:
    pass


def after(version: Version, found: Version | None) -> Version:
    """The version as it is stored in place of the one that was found."""
    if found is None or found.digest == version.digest:
        return version
    return version.model_copy(update={"replaces": found.digest})


@dataclass(frozen=True)
class Content:
    """What a version holds."""

    files: Path
    """Folder with the files of the digest."""
    describe: Callable[[Path], None]
    """Writes the files that describe them (card, picture) into a folder."""
    admit: Callable[[Version | None], None] = _admit_all
    """Raises StageFailure if this version must not take the name from the one that it stands for (None: it is free). It is
    asked before anything is written."""
