# SPDX-License-Identifier: Apache-2.0
"""`tuneyard render`: environments to files."""

from functools import partial
from pathlib import Path

import click

from tuneyard.commands.reporting import (
    EXIT_INPUT,
    chosen,
    environments_argument,
    one,
    report,
    root_option,
    stop_on_errors,
)
from tuneyard.pipeline import Built, build
from tuneyard.write import abandoned, compare, remove_tree, write


@click.command()
@environments_argument
@root_option
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write below this folder instead of the root.",
)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if anything would change.")
def command(environments: tuple[str, ...], root: Path, output: Path | None, check: bool) -> None:
    """Write argocd-apps/<env>/ and manifests/<env>/ of ENVIRONMENTS (names or files; all if none is named).

    Everything is checked first; nothing is written if anything is wrong. When none is named, trees of environments
    whose files are gone are removed.

    \b
    Examples:
      tuneyard render lab
      tuneyard render environments/*.yaml --check
    """
    target = output or root
    built = [one(partial(build, path, root)) for path in chosen(environments, root)]
    findings = [finding for entry in built for finding in entry.findings]
    report(findings)
    stop_on_errors(findings)
    differs = False
    for entry in built:
        changes = one(partial(compare if check else write, entry.files, entry.name, target))
        differs = differs or bool(changes)
        verb = "would change" if check else "done"
        click.echo(
            f"{entry.name}: {len(entry.files)} files, {len(changes.added)} added, {len(changes.changed)} changed, "
            f"{len(changes.removed)} removed ({verb})"
        )
        if not check:
            _next_steps(entry)
    if not environments:
        differs = _remove_abandoned(root, target, check=check) or differs
    if check and differs:
        raise SystemExit(EXIT_INPUT)


def _remove_abandoned(root: Path, target: Path, *, check: bool) -> bool:
    """Trees of environments whose files are gone; whether there were any."""
    names = [path.stem for path in (root / "environments").glob("*.yaml")]
    gone = abandoned(names, target)
    for name in gone:
        paths = one(partial(remove_tree, name, target, dry_run=check))
        verb = "would be removed" if check else "removed"
        click.echo(f"{name}: environments/{name}.yaml is gone, {len(paths)} files {verb}")
    return bool(gone)


def _next_steps(entry: Built) -> None:
    secrets = len(entry.stack.secrets())
    if secrets:
        click.echo(f"  {secrets} secrets are expected: see manifests/{entry.name}/secrets.md")
