# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard resume`: a suspended job goes on from its checkpoint."""

from pathlib import Path

import click

from tuneyard.commands.jobs.options import client_of, cluster_options, name_argument
from tuneyard.commands.reporting import one


@click.command()
@name_argument
@cluster_options
def command(name: str, namespace: str | None, context: str | None, kubeconfig: Path | None) -> None:
    """Resume the suspended job NAME: it goes on from its last checkpoint.

    A job that lives in git is changed there, otherwise Argo CD reverts it.
    """
    client = client_of(namespace, context, kubeconfig)
    job = one(lambda: client.resume(name))
    click.echo(f"{job.namespace}/{job.name} goes on from its last checkpoint")
