# SPDX-License-Identifier: Apache-2.0
"""Removes what one FineTuneJob published, for `deletionPolicy: Delete`, after all pods of the job have ended.

It removes only what has the job's mark (`registry.publishers`). A folder loses its name by one rename, so that a
server sees it whole or not at all, and is removed under a name that begins with a dot. After a
kill at any step, the next run continues from there.
"""

import shutil
from pathlib import Path

from tuneyard_api.durable import sync_folder

from tuneyard_trainer.pod.failures import classify, exit_code
from tuneyard_trainer.registry.publishers import erase, has_signed, leave, who_stays


def run_unpublish(target: Path, uid: str, termination_log: Path) -> int:
    """Runs the unpublish pod: writes one sentence to the termination log and returns the exit code."""
    try:
        said, code = unpublish(target, uid), 0
    except OSError as error:
        failure = classify(error)
        said, code = failure.message, exit_code(failure)
    print(said, flush=True)
    termination_log.write_text(said, encoding="utf-8")
    return code


def unpublish(target: Path, uid: str) -> str:
    """Remove `<registry>/<name>` if the job of this uid published it; returns one sentence on what was done.

    Raises:
        OSError: what could not be removed; running again goes on.
    """
    if not target.parent.is_dir():
        return f"{target}: the registry's folder is not there"
    for torn in target.parent.glob(f".{target.name}.tmp-*"):
        if has_signed(torn, uid):
            shutil.rmtree(torn)
    aside = target.with_name(f".{target.name}.gone-{uid}")
    if not aside.exists():
        if not has_signed(target, uid):
            there = "holds what others published" if target.exists() else "is not there"
            return f"{target}: nothing of this job, the name {there}"
        leave(target, uid)
        if who_stays(target):
            erase(target, uid)
            return f"{target}: stays, another job has published the same"
        _rename(target, aside)
    if who_stays(aside) and not target.exists():
        # Somebody has published the same between the look and the rename.
        erase(aside, uid)
        _rename(aside, target)
        return f"{target}: stays, another job has published the same"
    shutil.rmtree(aside)
    sync_folder(target.parent)
    return f"{target}: removed"


def _rename(folder: Path, name: Path) -> None:
    """Rename, durably."""
    folder.rename(name)
    sync_folder(name.parent)
