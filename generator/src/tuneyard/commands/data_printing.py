# SPDX-License-Identifier: Apache-2.0
"""Prints what was found in a data set. It stands apart because it imports the extra `tuneyard[data]`."""

import json
from typing import Any

import click
from tuneyard_data.checking import Checked
from tuneyard_data.report import text_of


def print_checked(checked: Checked, style: str) -> None:
    """Print the report as text, with warnings and problems on standard error, or all of it as JSON."""
    if style == "json":
        report: Any = (
            None if checked.report is None else checked.report.model_dump(mode="json", by_alias=True)
        )
        if report is not None:
            del report["planDigest"]
        found = {"problems": checked.problems, "warnings": checked.warnings, "report": report}
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    if checked.report is not None:
        click.echo(text_of(checked.report))
    for warning in checked.warnings:
        click.echo(f"warning: {warning}", err=True)
    for problem in checked.problems:
        click.echo(problem, err=True)
    if not checked.problems:
        click.echo(f"no problems, warnings: {len(checked.warnings)}", err=True)
