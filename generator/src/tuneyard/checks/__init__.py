# SPDX-License-Identifier: Apache-2.0
"""Everything that is checked before a tree is written: ordered chains of small named checks, all findings at once."""

from collections.abc import Sequence

from tuneyard.checks import gpus, models, settings, storage, tree, versions, vulnerabilities, workflows
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
    *vulnerabilities.CHECKS,
    *workflows.CHECKS,
)
FILE_CHECKS = tree.CHECKS


def check_stack(stack: Stack) -> list[Finding]:
    """The findings about an environment that contradicts itself."""
    return [finding for check in STACK_CHECKS for finding in check(stack)]


def unmet_preconditions(stack: Stack) -> list[Finding]:
    """Errors that leave nothing to derive values from, so that nothing can be rendered."""
    found = [finding for check in settings.PRECONDITIONS for finding in check(stack)]
    return [finding for finding in found if finding.severity is Severity.ERROR]


def check_files(stack: Stack, files: Sequence[File]) -> list[Finding]:
    """The findings about a rendered tree."""
    return [finding for check in FILE_CHECKS for finding in check(stack, files)]
