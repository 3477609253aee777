# SPDX-License-Identifier: Apache-2.0
"""load -> resolve -> check -> render -> check, for every command; `disk.write` comes after it, where a command writes.

The first check asks whether the environment holds what it says about itself. Rendering computes the order and writes it
into the files as sync waves. The second check looks at those files, and is left out when the first found an error.
"""

from dataclasses import dataclass
from pathlib import Path

from tuneyard.catalog import catalog, pins
from tuneyard.checks import check_files, check_stack, unmet_preconditions
from tuneyard.checks.chart_values import check_chart_values
from tuneyard.checks.custom_kinds import check as check_schemas
from tuneyard.checks.job_files import check as check_jobs
from tuneyard.environment.load import Loaded, load
from tuneyard.findings import Finding, InputError, has_errors, in_order
from tuneyard.render.digests import content_digests
from tuneyard.render.files import File
from tuneyard.render.tree import local_paths, render
from tuneyard.stack.model import Stack
from tuneyard.stack.resolve import resolve


@dataclass(frozen=True)
class Built:
    """An environment all the way to its files."""

    loaded: Loaded
    stack: Stack
    files: tuple[File, ...]
    findings: tuple[Finding, ...]

    @property
    def name(self) -> str:
        """The environment's name."""
        return self.loaded.environment.name


def resolve_file(path: Path) -> tuple[Loaded, Stack]:
    """The environment in a file and what it means.

    Raises:
        InputError: with every problem up to the stage that can't be passed.
    """
    loaded = load(path)
    return loaded, resolve_loaded(loaded)


def resolve_loaded(loaded: Loaded) -> Stack:
    """The stack of an environment.

    Raises:
        InputError: needs that nobody or several meet, unknown components.
    """
    try:
        return resolve(loaded.environment, catalog(loaded.environment), pins())
    except InputError as error:
        raise InputError(loaded.at_place(finding) for finding in error.findings) from error


def build(path: Path, root: Path) -> Built:
    """Everything of one environment file; `root` is the repository that its charts and folders are read from.

    Raises:
        InputError: what makes rendering impossible. What merely should not be applied is in `findings`.
    """
    return build_loaded(load(path), root)


def build_loaded(loaded: Loaded, root: Path) -> Built:
    """Does what `build` does, for an environment that was read already."""
    stack = resolve_loaded(loaded)
    found = check_stack(stack)
    if unmet_preconditions(stack):
        return Built(loaded, stack, (), tuple(in_order(map(loaded.at_place, found))))
    try:
        files = render(stack, content_digests(root, local_paths(stack)))
    except InputError as error:
        raise InputError(f if f.file else loaded.at_place(f) for f in (*found, *error.findings)) from error
    # Findings that follow from an error of the environment are not reported a second time.
    if not has_errors(found):
        found += [*check_files(stack, files), *check_schemas(files, root), *check_chart_values(stack, root)]
        found += check_jobs(stack, root)
    findings = in_order(finding if finding.file else loaded.at_place(finding) for finding in found)
    return Built(loaded, stack, files, tuple(findings))
