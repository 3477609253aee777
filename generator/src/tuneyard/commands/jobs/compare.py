# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard compare`: two jobs side by side."""

from dataclasses import asdict
from pathlib import Path

import click

from tuneyard.commands.jobs.options import client_of, cluster_options, output_option, print_json
from tuneyard.commands.reporting import one
from tuneyard.views.jobs import comparison_text


@click.command()
@click.argument("left")
@click.argument("right")
@cluster_options
@output_option
def command(  # noqa: PLR0917  click passes them by name
    left: str, right: str, namespace: str | None, context: str | None, kubeconfig: Path | None, output: str
) -> None:
    """Compare the jobs LEFT and RIGHT: what they measured, and where their specs differ.

    A job of another namespace is `namespace/name`.
    """
    client = client_of(namespace, context, kubeconfig)
    found = one(lambda: client.compare(left, right))
    if output == "json":
        print_json(asdict(found))
        return
    click.echo(comparison_text(found), nl=False)
