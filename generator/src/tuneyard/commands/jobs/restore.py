# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard restore`: jobs and runtimes from a file of `backup`."""

from pathlib import Path

import click

from tuneyard.client import Client
from tuneyard.commands.jobs.options import with_client
from tuneyard.commands.reporting import one


@click.command()
@with_client
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def command(client: Client, file: Path) -> None:
    """Make again what FILE has and the cluster has not.

    A job that had ended gets its end back and is not trained again; one that had not ended begins anew. What is there
    already is left as it is.
    """
    restored = one(lambda: client.restore(file))
    for words, jobs in (
        ("with its end", restored.ended),
        ("begins anew", restored.anew),
        ("was there", restored.left),
    ):
        for name in jobs:
            click.echo(f"{name}: {words}")
