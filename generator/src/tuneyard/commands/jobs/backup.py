# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard backup`: jobs and runtimes in a file."""

from pathlib import Path

import click

from tuneyard.client import Client
from tuneyard.commands.jobs.options import all_option, with_client
from tuneyard.commands.reporting import one


@click.command()
@with_client
@all_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def command(client: Client, file: Path, *, all_namespaces: bool) -> None:
    """Write the jobs of the namespace with their status, and all runtimes, to FILE.

    Claims and what lies on them, objects in S3 and Secrets are not in it.
    """
    saved = one(lambda: client.backup(file, all_namespaces=all_namespaces))
    click.echo(f"{file}: {len(saved.jobs)} jobs, {len(saved.runtimes)} runtimes")
