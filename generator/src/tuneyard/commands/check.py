# SPDX-License-Identifier: Apache-2.0
"""`tuneyard check`: everything that is wrong, at once."""

from pathlib import Path

import click

from tuneyard.commands.reporting import (
    chosen,
    environments_argument,
    format_option,
    report,
    root_option,
    stop_on_errors,
)
from tuneyard.findings import Finding, InputError
from tuneyard.pipeline import build


@click.command()
@environments_argument
@root_option
@format_option
def command(environments: tuple[str, ...], root: Path, style: str) -> None:
    """Say everything that is wrong with ENVIRONMENTS (names or files; all if none is named). Writes nothing.

    \b
    Examples:
      tuneyard check lab
      tuneyard check environments/*.yaml --format sarif > findings.sarif
    """
    findings: list[Finding] = []
    paths = chosen(environments, root)
    for path in paths:
        try:
            findings += build(path, root).findings
        except InputError as error:
            findings += error.findings
    report(findings, style)
    stop_on_errors(findings)
    if style == "text":
        click.echo(f"{len(paths)} checked, {len(findings)} warnings", err=True)
