# SPDX-License-Identifier: Apache-2.0
"""What commands share: finding environment files, printing findings, exit codes."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from tuneyard.findings import FORMATS, Finding, InputError, has_errors, in_order

EXIT_INPUT = 1

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    show_default="here",
    help="Folder with environments/, argocd-apps/ and manifests/.",
)
format_option = click.option(
    "--format", "style", type=click.Choice(sorted(FORMATS)), default="text", help="Format of the findings."
)
environments_argument = click.argument("environments", nargs=-1)


def environment_file(name: str, root: Path) -> Path:
    """The path as given, or `environments/<name>.yaml` for a bare name."""
    path = Path(name)
    return (
        path if path.suffix in (".yaml", ".yml") or path.exists() else root / "environments" / f"{name}.yaml"
    )


def chosen(names: tuple[str, ...], root: Path) -> list[Path]:
    """The files of the named environments, or, if none is named, all of environments/ but the sample."""
    if names:
        return [environment_file(name, root) for name in names]
    files = sorted(path for path in (root / "environments").glob("*.yaml") if path.stem != "sample")
    if not files:
        raise click.UsageError(f"there is no environment in {root / 'environments'}; try `tuneyard init`")
    return files


def report(findings: Iterable[Finding], style: str = "text") -> None:
    """Print findings: text to standard error, JSON and SARIF to standard output."""
    text = FORMATS[style](in_order(findings))
    click.echo(text, nl=False, err=style == "text")


def stop_on_errors(findings: Sequence[Finding]) -> None:
    """Exit 1 when anything must be fixed."""
    if has_errors(findings):
        raise SystemExit(EXIT_INPUT)


def one(action: Callable[[], Any]) -> Any:
    """The action's result; a wrong input is printed and ends the command with 1."""
    try:
        return action()
    except InputError as error:
        report(error.findings)
        raise SystemExit(EXIT_INPUT) from error
