# SPDX-License-Identifier: Apache-2.0
"""Everything that is checked before a tree is written: ordered chains of small named checks, all findings at once."""

from collections.abc import Sequence

from tuneyard.checks import gpus, models, settings, storage, tree, versions
from tuneyard.findings import Finding, Severity
from tuneyard.render.files import File
from tuneyard.stack.model import Stack

STACK_CHECKS = (
    *settings.PRECONDITIONS,
    *settings.CHECKS,
    *models.CHECKS,
    *gpus.CHECKS,
    *storage.CHECKS,
    *versions.CHECKS,
)
FILE_CHECKS = tree.CHECKS


def check_stack(stack: Stack) -> list[Finding]:
    """What the environment says about itself and does not hold."""
    return [finding for check in STACK_CHECKS for finding in check(stack)]


def is_renderable(stack: Stack) -> bool:
    """Whether what the values are derived from is there."""
    return not any(
        finding.severity is Severity.ERROR for check in settings.PRECONDITIONS for finding in check(stack)
    )


def check_files(stack: Stack, files: Sequence[File]) -> list[Finding]:
    """What the rendered tree does not hold."""
    return [finding for check in FILE_CHECKS for finding in check(stack, files)]
