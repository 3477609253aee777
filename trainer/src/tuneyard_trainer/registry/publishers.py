# SPDX-License-Identifier: Apache-2.0
"""Records which jobs published a folder of the registry: a mark for each job, inside that folder.

Two jobs may have published the same adapter under one name, as the same digest counts as done. So a folder is removed
only when its last publisher unpublishes it, and a folder without marks is never removed. A mark is a file named by
the FineTuneJob's uid; one that is about to go has LEAVING behind its name, so that a deletion that was killed is known.
"""

import os
from pathlib import Path

from tuneyard_api.durable import sync_folder
from tuneyard_api.registry import MARKS

LEAVING = ".leaving"
SOMEBODY = "somebody"
"""Stands for whoever put the folder there before publishers were marked, or by hand."""


def sign(folder: Path, uid: str) -> None:
    """Mark a folder that is being written.

    A run outside a cluster has no uid, and nothing that could ask for its deletion: it leaves no mark.
    """
    if uid:
        (folder / MARKS).mkdir(exist_ok=True)
        _write(folder / MARKS / uid)


def sign_too(folder: Path, uid: str) -> None:
    """Mark a folder that is there already, and rely on it.

    Raises:
        FileNotFoundError: when it has just been removed, and so must be published again.
    """
    if not uid or (folder / MARKS / uid).exists():
        return
    if not (folder / MARKS).exists():
        sign(folder, SOMEBODY)
    sign(folder, uid)


def has_signed(folder: Path, uid: str) -> bool:
    """Whether a job has published this folder; true also while it unpublishes it."""
    marks = folder / MARKS
    return (marks / uid).exists() or (marks / f"{uid}{LEAVING}").exists()


def who_stays(folder: Path) -> list[str]:
    """The uids of the publishers of the folder that are not unpublishing it."""
    marks = folder / MARKS
    names = (mark.name for mark in marks.iterdir()) if marks.is_dir() else ()
    return sorted(name for name in names if not name.endswith(LEAVING))


def leave(folder: Path, uid: str) -> None:
    """First step of unpublishing: from now on the job is no longer one of those who stay."""
    mark = folder / MARKS / uid
    if mark.exists():
        mark.rename(mark.with_name(f"{uid}{LEAVING}"))
        sync_folder(folder / MARKS)


def erase(folder: Path, uid: str) -> None:
    """Last step of unpublishing when other publishers stay."""
    (folder / MARKS / f"{uid}{LEAVING}").unlink(missing_ok=True)
    sync_folder(folder / MARKS)


def _write(mark: Path) -> None:
    # Not by way of a temporary name: only its name counts, and its folder must never be made again here.
    descriptor = os.open(mark, os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(mark.parent)
