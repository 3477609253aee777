# SPDX-License-Identifier: Apache-2.0
"""`tuneyard diff`: what a render would change, or how two environments differ."""

from pathlib import Path

import click

from tuneyard.commands.reporting import EXIT_INPUT, environment_file, one, root_option
from tuneyard.diffing import changes, summary
from tuneyard.pipeline import Built, build
from tuneyard.render.files import File
from tuneyard.write import read_index


def _as_if(built: Built, name: str) -> dict[str, File]:
    """The files as if the environment had another name, so that only real differences are left."""
    own = built.name

    def renamed(text: str) -> str:
        for before, after in (
            (f"/{own}/", f"/{name}/"),
            (f"/{own}.yaml", f"/{name}.yaml"),
            (f"{own}-", f"{name}-"),
            (f"-{own}", f"-{name}"),
            (f": {own}\n", f": {name}\n"),
        ):
            text = text.replace(before, after)
        return text

    return {renamed(f.path): File(renamed(f.path), renamed(f.text), f.component) for f in built.files}


@click.command()
@click.argument("environment")
@click.argument("other", required=False)
@root_option
@click.option("--summary", "short", is_flag=True, help="One line for each component.")
@click.option("--exit-code", is_flag=True, help="Exit 1 if there is a difference.")
def command(environment: str, other: str | None, root: Path, short: bool, exit_code: bool) -> None:
    r"""Show what `tuneyard render ENVIRONMENT` would change in the tree, or how OTHER differs from ENVIRONMENT.

    \b
    Examples:
      tuneyard diff lab
      tuneyard diff lab production --summary
    """
    built: Built = one(lambda: build(environment_file(environment, root), root))
    after = {file.path: file for file in built.files}
    if other:
        second: Built = one(lambda: build(environment_file(other, root), root))
        before = {path: file.text for path, file in after.items()}
        after = _as_if(second, built.name)
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
