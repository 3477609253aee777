# SPDX-License-Identifier: Apache-2.0
"""`tuneyard upgrade`: the pins for which a file has newer versions, with its notes."""

from pathlib import Path

import click
from tuneyard_api.problems import InputRefused
from tuneyard_api.yaml_io import load

from tuneyard.catalog import pins
from tuneyard.commands.reporting import EXIT_INPUT, one
from tuneyard.findings import Finding, InputError
from tuneyard.views.upgrades import Upgrade, upgrades


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True), required=False)
@click.option("--exit-code", is_flag=True, help="Exit 1 if a newer version is listed.")
def command(file: Path | None, exit_code: bool) -> None:
    """Compare our pinned versions with FILE: the components.yaml of another branch, or a list of versions with notes.

    To move a pin, check the values against the new chart (`tuneyard schemas add CHART`) and commit components.yaml.

    \b
    Examples:
      git show origin/renovate/charts:generator/src/tuneyard/catalog/components.yaml > new.yaml; tuneyard upgrade new.yaml
      echo 'versions: {mlflow: {version: 1.12.0, notes: "needs Kubernetes 1.30"}}' > new.yaml; tuneyard upgrade new.yaml
    """
    if file is None:
        raise click.UsageError(
            "FILE is needed, because no version is looked up: give a Renovate branch's components.yaml, or a list of versions"
        )

    def read() -> list[Upgrade]:
        try:
            text = file.read_text()
            return upgrades(pins(), load(text, str(file)).value, text, str(file))
        except (InputRefused, UnicodeDecodeError) as error:
            raise InputError([Finding("upgrade", f"can't be read: {error}", file=str(file))]) from error

    found = one(read)
    for entry in found:
        part = "" if entry.what == "chart" else f" ({entry.what})"
        major = "  major: read its notes" if entry.is_major else ""
        click.echo(f"{entry.component}{part}: {entry.now} -> {entry.newer}{major}")
        if entry.note:
            click.echo(f"  {entry.note}")
    click.echo(f"{len(found)} newer", err=True)
    if found and exit_code:
        raise SystemExit(EXIT_INPUT)
