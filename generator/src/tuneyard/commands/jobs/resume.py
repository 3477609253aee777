# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard resume`: a suspended job goes on from its checkpoint."""

import click

from tuneyard.client import Client
from tuneyard.commands.jobs.options import name_argument, with_client
from tuneyard.commands.reporting import one


@click.command()
@name_argument
@with_client
def command(name: str, client: Client) -> None:
    """Resume the suspended job NAME: it goes on from its last checkpoint.

    A job that lives in git is changed there, otherwise Argo CD reverts it.
    """
    job = one(lambda: client.resume(name))
    click.echo(f"{job.namespace}/{job.name} goes on from its last checkpoint")
