# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard fetch`: what a job published, on this machine, and how to ask its endpoint."""

from pathlib import Path

import click

from tuneyard.client import Client
from tuneyard.commands.jobs.options import name_argument, with_client
from tuneyard.commands.reporting import one


@click.command()
@name_argument
@with_client
@click.option(
    "--to", "folder", type=click.Path(path_type=Path, file_okay=False), help="New folder; otherwise NAME."
)
@click.option("--image", help="Image of the pod that reads the claim; otherwise the runtime's.")
def command(
    name: str,
    client: Client,
    folder: Path | None,
    image: str | None,
) -> None:
    """Copy what the job NAME published: the adapter or model, metrics, samples and report.

    A pod reads the registry, a claim or S3, and is deleted afterwards. What arrives is compared with the digest in status.
    """
    fetched = one(lambda: client.fetch(name, folder or Path(name.rpartition("/")[2]), image=image))
    for file in fetched.files:
        click.echo(fetched.folder / file)
    if fetched.curl:
        click.echo(f"\nask it:\n  {fetched.curl}")
