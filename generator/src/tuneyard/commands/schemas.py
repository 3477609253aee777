# SPDX-License-Identifier: Apache-2.0
"""`tuneyard schemas`: schemas of custom resources for `tuneyard check`."""

from functools import partial
from pathlib import Path

import click

from tuneyard.checks.chart_values import add_chart, is_chart, kept_charts
from tuneyard.checks.custom_kinds import add, known
from tuneyard.commands.reporting import one, root_option


@click.group()
def command() -> None:
    """Keep schemas of custom resources and values of charts, so that check and render hold every object against them.

    \b
    Examples:
      tuneyard schemas add k8s-nim-operator/crds/
      tuneyard schemas add mlflow-1.11.5.tgz
      tuneyard schemas list
    """


@command.command("add")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@root_option
@click.option("--chart-version", help="The published version, where Chart.yaml has another.")
def add_command(paths: tuple[Path, ...], root: Path, chart_version: str | None) -> None:
    """Keep what PATHS hold: CustomResourceDefinitions (files, folders), values of charts (folders, .tgz)."""
    charts = [path for path in paths if is_chart(path)]
    for path in charts:
        name, version = one(partial(add_chart, path, root, chart_version))
        click.echo(f"chart {name} {version}")
    others = [path for path in paths if path not in charts]
    others += [path / "crds" for path in charts if (path / "crds").is_dir()]
    for api_version, kind in one(lambda: add(others, root)) if others else ():
        click.echo(f"{api_version} {kind}")


@command.command("list")
@root_option
def list_command(root: Path) -> None:
    """Print the kinds whose schemas are kept, and the charts whose values are."""
    for api_version, kind in sorted(known(root)):
        click.echo(f"{api_version} {kind}")
    for name, version in kept_charts(root):
        click.echo(f"chart {name} {version}")
