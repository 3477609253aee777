# SPDX-License-Identifier: Apache-2.0
"""The files of a version before they are in a registry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Content:
    """What a version holds."""

    files: Path
    """Folder with the files of the digest."""
    describe: Callable[[Path], None]
    """Writes the files that describe them (card, picture) into a folder."""
