# SPDX-License-Identifier: Apache-2.0
"""`tuneyard check`: everything that is wrong, at once."""

from pathlib import Path

import click

from tuneyard.checks.core_kinds import check_core_kinds
from tuneyard.commands.cluster_options import connect, context_option, kubeconfig_option
from tuneyard.commands.reporting import (
    chosen,
    environments_argument,
    format_option,
    report,
    root_option,
    stop_on_errors,
)
from tuneyard.findings import Finding, InputError, Severity, has_errors, in_order
from tuneyard.pipeline import Built, build

UNCONFIRMED = frozenset({"pin-is-confirmed", "air-gap-knows-images"})
"""Rules whose findings are gaps in what the catalog knows: a person can look, but did nothing wrong."""


@click.command()
@environments_argument
@root_option
@format_option
@click.option(
    "--schemas", is_flag=True, help="Also compare core kinds with the schemas of Kubernetes (slower)."
)
@click.option("-v", "--verbose", is_flag=True, help="Also list what could not be confirmed, and why.")
@click.option("--cluster", is_flag=True, help="Also compare with the live cluster; only reads from it.")
@click.option(
    "--snapshot",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Also compare with a cluster in a file that `tuneyard snapshot` wrote.",
)
@kubeconfig_option
@context_option
def command(  # noqa: PLR0917  click passes them by name
    environments: tuple[str, ...],
    root: Path,
    style: str,
    schemas: bool,
    verbose: bool,
    cluster: bool,
    snapshot: Path | None,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    """Report every problem of ENVIRONMENTS (names or files; all environments if none is named).

    This command writes nothing.

    \b
    Examples:
      tuneyard check lab
      tuneyard check lab --schemas --cluster
      tuneyard check lab --snapshot cluster.yaml
      tuneyard check environments/*.yaml --format sarif > findings.sarif
    """
    if cluster and snapshot:
        raise click.UsageError("--cluster and --snapshot are two clusters; try one")
    findings: list[Finding] = []
    paths = chosen(environments, root)
    for path in paths:
        try:
            built = build(path, root)
            findings += built.findings
            if schemas:
                findings += check_core_kinds(built.files, built.loaded.environment.cluster.kubernetes)
            if cluster:
                findings += _live(built, kubeconfig, context)
            if snapshot:
                findings += _kept(built, snapshot)
        except InputError as error:
            findings += error.findings
    if style == "text" and not has_errors(findings):
        _report_good(len(paths), in_order(findings), verbose=verbose)
        return
    report(findings, style)
    stop_on_errors(findings)


def _report_good(environments: int, warnings: list[Finding], *, verbose: bool) -> None:
    """Print that nothing is wrong, then the warnings; unconfirmed values are only counted unless `verbose`."""
    shown = [finding for finding in warnings if finding.rule not in UNCONFIRMED]
    folded = len(warnings) - len(shown)
    line = f"{_count(environments, 'environment')} checked, "
    line += f"no errors, {_count(len(shown), 'warning')}" if shown else "all good"
    if folded:
        line += f"; {_count(folded, 'detail')} could not be confirmed"
        line += ":" if verbose else " (`tuneyard check -v` lists them)"
    click.echo(line, err=True)
    report(warnings if verbose else shown)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _live(built: Built, kubeconfig: Path | None, context: str | None) -> list[Finding]:
    """Findings that contradict the cluster, and the secrets that it lacks."""
    from tuneyard.cluster.room import judge  # noqa: PLC0415  with --cluster only
    from tuneyard.cluster.survey import survey  # noqa: PLC0415

    client, stack = connect(kubeconfig, context), built.stack
    found = judge(stack, built.files, survey(client, stack.environment.argocd.namespace))
    missing = [
        f"{s.namespace}/{s.name}" for s in stack.secrets() if not client.has_secret(s.namespace, s.name)
    ]
    if missing:
        problem = f"{len(missing)} expected secrets are not in the cluster: {', '.join(missing[:5])}"
        hint = f"manifests/{built.name}/secrets.md"
        found.append(Finding("live-secrets", problem, ("secrets",), None, hint, Severity.WARNING))
    return [_placed(built, finding) for finding in found]


def _kept(built: Built, file: Path) -> list[Finding]:
    """Findings that contradict a cluster in a file; Secrets are not in it."""
    from tuneyard.cluster.room import judge  # noqa: PLC0415  with --snapshot only
    from tuneyard.cluster.survey import read_yaml  # noqa: PLC0415

    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError([Finding("snapshot", f"can't be read: {error}", file=str(file))]) from error
    return [
        _placed(built, finding) for finding in judge(built.stack, built.files, read_yaml(text, str(file)))
    ]


def _placed(built: Built, finding: Finding) -> Finding:
    return finding if finding.file else built.loaded.at_place(finding)
