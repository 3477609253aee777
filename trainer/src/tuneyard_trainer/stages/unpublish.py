# SPDX-License-Identifier: Apache-2.0
"""Removes what one FineTuneJob published, for `deletionPolicy: Delete`, after all pods of the job have ended."""

from pathlib import Path

from tuneyard_trainer.pod.failures import classify, exit_code
from tuneyard_trainer.registry.claim import ClaimRegistry


def run_unpublish(target: Path, uid: str, termination_log: Path) -> int:
    """Runs the unpublish pod for `<registry>/<name>`: writes one sentence to the termination log and returns the exit code."""
    try:
        said, code = ClaimRegistry(target.parent).unpublish(target.name, uid), 0
    except OSError as error:
        failure = classify(error)
        said, code = failure.message, exit_code(failure)
    print(said, flush=True)
    termination_log.write_text(said, encoding="utf-8")
    return code
