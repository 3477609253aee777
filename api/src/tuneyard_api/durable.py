# SPDX-License-Identifier: Apache-2.0
"""Writes files and folders atomically: after a power cut they exist whole or not at all.

Written under a temporary dot-name beside their final one, synced, renamed, and the parent synced.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path`, replacing a file that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def write_link(path: Path, text: str) -> None:
    """Write a symbolic link to `path`, atomically replacing a link or a file that is there.

    Raises:
        OSError: EISDIR or EEXIST, if a folder is there.
    """
    temporary = _beside(path)
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(text)
    temporary.replace(path)
    sync_folder(path.parent)


@contextmanager
def folder_being_written(path: Path) -> Iterator[Path]:
    """A temporary folder to fill; it becomes `path`, which must not be there, when the block ends without error.

    Raises:
        OSError: ENOTEMPTY or EEXIST, if `path` has appeared meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left_over in path.parent.glob(f".{path.name}.tmp-*"):
        _remove_left_over(left_over)
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        sync_tree(temporary)
        temporary.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_left_over(folder: Path) -> None:
    # Renamed first: another process may still fill it, and a folder that is half deleted must not get its final name.
    aside = folder.with_name(f"{folder.name}-gone")
    with suppress(OSError):
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A temporary name that no other process uses, not even one with the same id in another pod."""
    return path.with_name(f".{path.name}.tmp-{os.uname().nodename}-{os.getpid()}")


def sync_tree(folder: Path) -> None:
    """Sync everything below `folder` to disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)
    sync_folder(folder)


def sync_file(path: Path) -> None:
    """Sync the content of `path` to disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Sync the names in `folder` to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
