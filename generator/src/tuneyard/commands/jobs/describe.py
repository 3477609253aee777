# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard describe`: one job on one screen."""

from datetime import UTC, datetime
from pathlib import Path

import click

from tuneyard.commands.jobs.options import (
    client_of,
    cluster_options,
    name_argument,
    output_option,
    print_json,
)
from tuneyard.commands.reporting import one
from tuneyard.views.jobs import job_text


@click.command()
@name_argument
@cluster_options
@output_option
def command(
    name: str, namespace: str | None, context: str | None, kubeconfig: Path | None, output: str
) -> None:
    """Show the job NAME: what it is, how far it is, its attempts, where its time went, its events."""
    client = client_of(namespace, context, kubeconfig)
    job = one(lambda: client.get(name))
    events = one(lambda: client.events(job))
    if output == "json":
        print_json({"job": job.body, "events": events})
        return
    click.echo(job_text(job, events, datetime.now(UTC)), nl=False)
