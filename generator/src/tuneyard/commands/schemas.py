# SPDX-License-Identifier: Apache-2.0
"""`tuneyard schemas`: schemas of custom resources for `tuneyard check`."""

from pathlib import Path

import click

from tuneyard.commands.reporting import one, root_option
from tuneyard.schemas import add, known


@click.group()
def command() -> None:
    """Keep schemas of custom resources, so that check and render hold every object against them.

    \b
    Examples:
      tuneyard schemas add k8s-nim-operator/crds/
      tuneyard schemas list
    """


@command.command("add")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@root_option
def add_command(paths: tuple[Path, ...], root: Path) -> None:
    """Keep the schemas of the CustomResourceDefinitions in PATHS (files, or folders such as a chart's crds/)."""
    for api_version, kind in one(lambda: add(paths, root)):
        click.echo(f"{api_version} {kind}")


@command.command("list")
@root_option
def list_command(root: Path) -> None:
    """Print the kinds whose schemas are kept."""
    for api_version, kind in sorted(known(root)):
        click.echo(f"{api_version} {kind}")
