# SPDX-License-Identifier: Apache-2.0
"""`tuneyard diff`: what a render would change, or how two environments differ."""

from dataclasses import replace
from pathlib import Path

import click

from tuneyard.commands.reporting import EXIT_INPUT, environment_file, one, root_option
from tuneyard.disk.write import read_index
from tuneyard.environment.load import load
from tuneyard.pipeline import Built, build, build_loaded
from tuneyard.views.diff import changes, summary


def _as_if(path: Path, name: str, root: Path) -> Built:
    """The environment in a file as if it had another name, so that only real differences are left."""
    loaded = load(path)
    return build_loaded(
        replace(loaded, environment=loaded.environment.model_copy(update={"name": name})), root
    )


@click.command()
@click.argument("environment")
@click.argument("other", required=False)
@root_option
@click.option("--summary", "short", is_flag=True, help="One line for each component.")
@click.option("--exit-code", is_flag=True, help="Exit 1 if there is a difference.")
def command(environment: str, other: str | None, root: Path, short: bool, exit_code: bool) -> None:
    """Show what `tuneyard render ENVIRONMENT` would change in the tree, or how OTHER differs from ENVIRONMENT.

    \b
    Examples:
      tuneyard diff lab
      tuneyard diff lab production --summary
    """
    built: Built = one(lambda: build(environment_file(environment, root), root))
    after = {file.path: file for file in built.files}
    if other:
        second: Built = one(lambda: _as_if(environment_file(other, root), built.name, root))
        before = {path: file.text for path, file in after.items()}
        after = {file.path: file for file in second.files}
    else:
        paths = {*read_index(built.name, root), *after}
        before = {path: (root / path).read_text() for path in paths if (root / path).is_file()}
    found = list(changes(before, after))
    click.echo(summary(found), nl=False)
    if not short:
        for change in found:
            click.echo(change.unified(), nl=False)
    if found and exit_code:
        raise SystemExit(EXIT_INPUT)
