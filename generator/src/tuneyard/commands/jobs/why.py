# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard why`: why a job waits or fails, in one sentence, and what to try."""

from dataclasses import asdict

import click

from tuneyard.client import Client
from tuneyard.commands.jobs.options import name_argument, output_option, print_json, with_client
from tuneyard.commands.reporting import one


@click.command()
@name_argument
@with_client
@output_option
def command(name: str, client: Client, output: str) -> None:
    """Say why the job NAME waits or fails, and what to try.

    The answer comes from its status, the events about it and its pods, and Kueue's Workload.
    """
    answer = one(lambda: client.why(name))
    if output == "json":
        print_json(asdict(answer))
        return
    click.echo(f"{click.style(name, bold=True)}: {answer.sentence}")
    if answer.advice:
        click.echo(f"try: {answer.advice}")
    for line in answer.evidence:
        click.echo(f"  {line}")
