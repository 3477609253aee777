# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard suspend`: a job writes a checkpoint and gives its GPUs back."""

import click

from tuneyard.client import Client
from tuneyard.commands.jobs.options import name_argument, with_client
from tuneyard.commands.reporting import one


@click.command()
@name_argument
@with_client
def command(name: str, client: Client) -> None:
    """Suspend the job NAME: its training writes a checkpoint and gives its GPUs back.

    A job that lives in git is changed there, otherwise Argo CD reverts it.
    """
    job = one(lambda: client.suspend(name))
    click.echo(f"{job.namespace}/{job.name} is asked to write a checkpoint and to leave")
