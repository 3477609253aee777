# SPDX-License-Identifier: Apache-2.0
"""Records which jobs published a version of the registry: a mark for each job, inside that version.

Two jobs may have published the same adapter under one name, as the same digest counts as done. So a version is removed
only when its last publisher unpublishes it, and a version without marks is never removed with a job. A mark is a file named by
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
    """Mark a folder that is there already, and rely on it from now on.

    Raises:
        FileNotFoundError: when it has just been removed, and so must be published again.
    """
    if not uid:
        return
    if not (folder / MARKS).exists():
        sign(folder, SOMEBODY)
    sign(folder, uid)


def has_signed(folder: Path, uid: str) -> bool:
    """Whether a job has published this folder; true also while it unpublishes it."""
    marks = folder / MARKS
    return (marks / uid).exists() or (marks / f"{uid}{LEAVING}").exists()


def who_stays(folder: Path, since: float = 0.0) -> list[str]:
    """The uids of the publishers that are not unpublishing the version; `since`: those that published at this Unix time or later."""
    marks = folder / MARKS
    found = [mark for mark in marks.iterdir() if not mark.name.endswith(LEAVING)] if marks.is_dir() else []
    return sorted(mark.name for mark in found if mark.stat().st_mtime >= since)


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
    # Not by way of a temporary name: only its name and its time count, and its folder must never be made again here.
    descriptor = os.open(mark, os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.utime(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(mark.parent)
