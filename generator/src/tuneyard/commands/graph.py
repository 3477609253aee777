# SPDX-License-Identifier: Apache-2.0
"""`tuneyard graph`: the order, drawn."""

from pathlib import Path

import click

from tuneyard.commands.reporting import environment_file, one, root_option
from tuneyard.pipeline import resolve_file
from tuneyard.views.graph import STYLES


@click.command()
@click.argument("environment")
@root_option
@click.option("--format", "style", type=click.Choice(sorted(STYLES)), default="text", help="How it is drawn.")
def command(environment: str, root: Path, style: str) -> None:
    """Draw the order of ENVIRONMENT (a name or a file): waves, needs, and the reason of each.

    \b
    Examples:
      tuneyard graph lab
      tuneyard graph lab --format svg > lab.svg
    """
    _, stack = one(lambda: resolve_file(environment_file(environment, root)))
    click.echo(STYLES[style](stack), nl=False)
