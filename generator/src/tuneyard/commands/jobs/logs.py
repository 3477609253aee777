# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard logs`: the log of the pod that matters, without knowing its name."""

from pathlib import Path

import click
from tuneyard_api.pod_contract import Stage

from tuneyard.commands.jobs.options import client_of, cluster_options, name_argument
from tuneyard.commands.reporting import one


@click.command()
@name_argument
@cluster_options
@click.option("-f", "--follow", is_flag=True, help="Go on until the pod ends.")
@click.option("--tail", type=click.IntRange(min=0), help="Only the last lines, so many.")
@click.option(
    "--stage",
    type=click.Choice([stage.value for stage in Stage]),
    help="Stage; otherwise the one that runs, or the last.",
)
def command(  # noqa: PLR0917  click passes them by name
    name: str,
    namespace: str | None,
    context: str | None,
    kubeconfig: Path | None,
    tail: int | None,
    stage: str | None,
    *,
    follow: bool,
) -> None:
    """Print the log of the job NAME: of the attempt that runs, else of the last one."""
    client = client_of(namespace, context, kubeconfig)
    chosen = Stage(stage) if stage else None

    def print_lines() -> None:
        for line in client.logs(name, stage=chosen, follow=follow, tail=tail):
            click.echo(line)

    one(print_lines)
