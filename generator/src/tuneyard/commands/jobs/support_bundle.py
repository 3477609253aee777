# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard support-bundle`: one archive for whoever is to find out what is wrong."""

from pathlib import Path

import click

from tuneyard.client import Client
from tuneyard.commands.jobs.options import all_option, with_client
from tuneyard.commands.reporting import one


@click.command()
@with_client
@all_option
@click.option(
    "--to",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("tuneyard-support.tar.gz"),
    show_default=True,
    help="Archive to write.",
)
def command(client: Client, file: Path, *, all_namespaces: bool) -> None:
    """Collect jobs, runtimes, pods, events, queues, nodes and the operator's logs in one archive, without secrets.

    No Secret and no ConfigMap is read; values of environment variables, and what looks like a credential, are blanked.
    Read it before you give it away: names, paths and messages stay.
    """
    made = one(lambda: client.support_bundle(file, all_namespaces=all_namespaces))
    click.echo(f"{made.file}: {len(made.members)} files")
    for problem in made.problems:
        click.echo(f"  could not be read: {problem}")
