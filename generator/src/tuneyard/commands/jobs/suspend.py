# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard suspend`: a job writes a checkpoint and gives its GPUs back."""

from pathlib import Path

import click

from tuneyard.commands.jobs.options import client_of, cluster_options, name_argument
from tuneyard.commands.reporting import one


@click.command()
@name_argument
@cluster_options
def command(name: str, namespace: str | None, context: str | None, kubeconfig: Path | None) -> None:
    """Suspend the job NAME: its training writes a checkpoint and gives its GPUs back.

    A job that lives in git is changed there, otherwise Argo CD reverts it.
    """
    client = client_of(namespace, context, kubeconfig)
    job = one(lambda: client.suspend(name))
    click.echo(f"{job.namespace}/{job.name} is asked to write a checkpoint and to leave")
