# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard compare`: two jobs side by side."""

from dataclasses import asdict

import click

from tuneyard.client import Client
from tuneyard.commands.jobs.options import output_option, print_json, with_client
from tuneyard.commands.reporting import one
from tuneyard.views.jobs import comparison_text


@click.command()
@click.argument("left")
@click.argument("right")
@with_client
@output_option
def command(left: str, right: str, client: Client, output: str) -> None:
    """Compare the jobs LEFT and RIGHT: what they measured, and where their specs differ.

    A job of another namespace is `namespace/name`.
    """
    found = one(lambda: client.compare(left, right))
    if output == "json":
        print_json(asdict(found))
        return
    click.echo(comparison_text(found), nl=False)
