# SPDX-License-Identifier: Apache-2.0
"""`tuneyard status`: how far an environment is, wave by wave, and what blocks it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from tuneyard.catalog.foundation import LABEL_ENVIRONMENT
from tuneyard.cluster.progress import as_rows, as_text, progress_of
from tuneyard.commands.cluster_options import connect, context_option, kubeconfig_option
from tuneyard.commands.reporting import EXIT_INPUT, environment_file, one, root_option
from tuneyard.environment.load import load


@click.command()
@click.argument("environment")
@root_option
@kubeconfig_option
@context_option
@click.option(
    "--format", "style", type=click.Choice(["text", "json"]), default="text", help="Format of the output."
)
@click.option("--exit-code", is_flag=True, help="Exit 1 unless everything is ready.")
def command(  # noqa: PLR0917  click passes them by name
    environment: str, root: Path, kubeconfig: Path | None, context: str | None, style: str, exit_code: bool
) -> None:
    """Show every Application of ENVIRONMENT in the cluster, wave by wave: what blocks it, its message, and since when.

    \b
    Examples:
      tuneyard status lab
      tuneyard status lab --format json | jq '.[] | select(.ready | not)'
    """
    about = one(lambda: load(environment_file(environment, root))).environment
    path = f"/apis/argoproj.io/v1alpha1/namespaces/{about.argocd.namespace}/applications"
    query = f"?labelSelector={LABEL_ENVIRONMENT}%3D{about.name}"
    entries = one(lambda: connect(kubeconfig, context).items(path + query))
    rows = progress_of(entries, datetime.now(UTC))
    if not rows:
        click.echo(
            f"no Application of {about.name} is in {about.argocd.namespace}; try `tuneyard bootstrap {about.name}`",
            err=True,
        )
        raise SystemExit(EXIT_INPUT)
    click.echo(json.dumps(as_rows(rows), indent=2) + "\n" if style == "json" else as_text(rows), nl=False)
    ready = sum(row.is_ready for row in rows)
    click.echo(f"{ready} of {len(rows)} ready", err=True)
    if exit_code and ready < len(rows):
        raise SystemExit(EXIT_INPUT)
