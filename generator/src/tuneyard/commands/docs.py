# SPDX-License-Identifier: Apache-2.0
"""`tuneyard docs`: everything that is generated from the model and the catalog, for `make verify`."""

from pathlib import Path

import click

from tuneyard.commands.reporting import EXIT_INPUT, root_option
from tuneyard.views.pages import pages


@click.command()
@root_option
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if anything would change.")
def command(root: Path, check: bool) -> None:
    """Write environments/sample.yaml and the generated pages of docs/reference.

    \b
    Examples:
      tuneyard docs
      tuneyard docs --check
    """
    stale = False
    for path, text in pages().items():
        target = root / path
        if target.is_file() and target.read_text() == text:
            continue
        stale = True
        if check:
            click.echo(f"{path} is not what the model says; try `tuneyard docs`", err=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            click.echo(f"{path} written")
    if stale and check:
        raise SystemExit(EXIT_INPUT)
