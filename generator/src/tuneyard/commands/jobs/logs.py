# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard logs`: the log of the pod that matters, without knowing its name."""

import click
from tuneyard_api.pod_contract import Stage

from tuneyard.client import Client
from tuneyard.commands.jobs.options import name_argument, with_client
from tuneyard.commands.reporting import one


@click.command()
@name_argument
@with_client
@click.option("-f", "--follow", is_flag=True, help="Go on until the pod ends.")
@click.option("--tail", type=click.IntRange(min=0), help="Number of last lines to print; otherwise all.")
@click.option(
    "--stage",
    type=click.Choice([stage.value for stage in Stage]),
    help="Stage; otherwise the one that runs, or the last.",
)
@click.option(
    "--attempt", type=click.IntRange(min=1), help="Attempt of the stage, also one whose pod is gone."
)
def command(
    name: str,
    client: Client,
    tail: int | None,
    stage: str | None,
    attempt: int | None,
    *,
    follow: bool,
) -> None:
    """Print the log of the job NAME: of the attempt that runs, else of the last one."""
    chosen = Stage(stage) if stage else None

    def print_lines() -> None:
        for line in client.logs(name, stage=chosen, attempt=attempt, follow=follow, tail=tail):
            click.echo(line)

    one(print_lines)
