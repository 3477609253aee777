# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard list`: FineTuneJobs with progress, what they wait for, and GPU hours."""

from datetime import UTC, datetime

import click

from tuneyard.client import Client
from tuneyard.commands.jobs.options import all_option, output_option, print_json, with_client
from tuneyard.commands.reporting import one
from tuneyard.views.jobs import jobs_table


@click.command()
@with_client
@all_option
@output_option
def command(client: Client, *, all_namespaces: bool, output: str) -> None:
    """List FineTuneJobs."""
    jobs = one(lambda: client.list(all_namespaces=all_namespaces))
    if output == "json":
        print_json([job.body for job in jobs])
        return
    if not jobs:
        where = "in any namespace" if all_namespaces else f"in namespace {client.namespace}"
        click.echo(f"There is no FineTuneJob {where}.", err=True)
        return
    click.echo(jobs_table(jobs, datetime.now(UTC), with_namespace=all_namespaces), nl=False)
