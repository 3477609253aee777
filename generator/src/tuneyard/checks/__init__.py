# SPDX-License-Identifier: Apache-2.0
"""Everything that is checked before a tree is written, as chains of small named checks."""

from collections.abc import Sequence

from tuneyard.findings import Finding
from tuneyard.render.files import File
from tuneyard.stack import Stack


def check_stack(stack: Stack) -> list[Finding]:
    """What the environment says about itself and does not hold."""
    del stack
    return []


def check_files(stack: Stack, files: Sequence[File]) -> list[Finding]:
    """What the rendered tree does not hold."""
    del stack, files
    return []
