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
from tuneyard.disk.freshness import Freshness
from tuneyard.disk.write import Changes, Paths, Staged, abandoned, compare, remove_tree, stage
from tuneyard.findings import Finding, InputError, has_errors
from tuneyard.pipeline import Built, build


@click.command()
@environments_argument
@root_option
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write into this folder instead of the root.",
)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if anything would change.")
def command(environments: tuple[str, ...], root: Path, output: Path | None, check: bool) -> None:
    """Write argocd-apps/<env>/ and manifests/<env>/ of ENVIRONMENTS (names or files; all if none is named).

    All of them are checked first, and nothing is written if one has an error. If none is named, the trees of deleted
    environment files are removed.

    \b
    Examples:
      tuneyard render lab
      tuneyard render environments/*.yaml --check
    """
    target = output or root
    paths = chosen(environments, root)
    done = Rendering(root, target, check=check)
    for path in paths:
        done.add(path)
    differs = done.finish()
    if not environments:
        differs = _remove_abandoned(root, target, check=check) or differs
    if check and differs:
        raise SystemExit(EXIT_INPUT)


class Rendering:
    """Renders, checks and stages one environment after the other, and moves all into place if none has an error."""

    def __init__(self, root: Path, target: Path, *, check: bool) -> None:
        self.root, self.target, self.check = root, target, check
        self.fresh = Freshness(root, target)
        self.findings: list[Finding] = []
        self.staged: list[tuple[Staged, bytes, Paths, tuple[Finding, ...], str]] = []
        self.same: list[str] = []
        self.differs = False

    def add(self, path: Path) -> None:
        """Render one file; its findings are kept until the end, so that all are reported."""
        try:
            source = path.read_bytes()
        except OSError:
            source = b""
        if not self.check and (known := self.fresh.unchanged(path.stem, source)) is not None:
            self.same.append(path.stem)
            self.findings += known
            return
        try:
            built = build(path, self.root)
            self.findings += built.findings
            if has_errors(self.findings):
                return
            if self.check:
                self._compare(built)
            else:
                note = (source, Paths(file.path for file in built.files), built.findings, _summary(built))
                self.staged.append((stage(built.files, built.name, self.target), *note))
        except InputError as error:
            self.findings += error.findings

    def _compare(self, built: Built) -> None:
        changes = compare(built.files, built.name, self.target)
        self.differs = self.differs or bool(changes)
        click.echo(f"{_line(built.name, len(built.files), changes)} (would change)")

    def finish(self) -> bool:
        """Report the errors, or move everything into place; returns whether anything would change."""
        report(self.findings)
        if has_errors(self.findings):
            for entry in self.staged:
                entry[0].undo()
        stop_on_errors(self.findings)
        for staged, source, paths, warnings, summary in self.staged:
            changes, names = staged.commit(), tuple(paths)
            self.fresh.keep(staged.environment, source, names, warnings)
            click.echo(f"{_line(staged.environment, len(names), changes)} (done){summary}")
        for name in self.same:
            click.echo(f"{name}: unchanged since the last render")
        return self.differs


def _line(name: str, files: int, changes: Changes) -> str:
    added, changed, removed = len(changes.added), len(changes.changed), len(changes.removed)
    return f"{name}: {files} files, {added} added, {changed} changed, {removed} removed"


def _remove_abandoned(root: Path, target: Path, *, check: bool) -> bool:
    """Remove the trees of environments whose files are deleted; returns whether there were any."""
    names = [path.stem for path in (root / "environments").glob("*.yaml")]
    gone = abandoned(names, target)
    for name in gone:
        paths = one(partial(remove_tree, name, target, dry_run=check))
        verb = "would be removed" if check else "removed"
        click.echo(f"{name}: environments/{name}.yaml is gone, {len(paths)} files {verb}")
    return bool(gone)


def _summary(built: Built) -> str:
    secrets = len(built.stack.secrets())
    return f"\n  {secrets} secrets are expected: see manifests/{built.name}/secrets.md" if secrets else ""
