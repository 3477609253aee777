# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard describe`: one job on one screen."""

from datetime import UTC, datetime

import click

from tuneyard.client import Client
from tuneyard.commands.jobs.options import name_argument, output_option, print_json, with_client
from tuneyard.commands.reporting import one
from tuneyard.views.jobs import job_text


@click.command()
@name_argument
@with_client
@output_option
def command(name: str, client: Client, output: str) -> None:
    """Show the job NAME: what it is, how far it is, its attempts, where its time went, its events."""
    job = one(lambda: client.get(name))
    events = one(lambda: client.events(job))
    if output == "json":
        print_json({"job": job.body, "events": events})
        return
    click.echo(job_text(job, events, datetime.now(UTC)), nl=False)
