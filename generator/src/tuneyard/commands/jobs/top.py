# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard top`: who trains now, and GPU hours by namespace and by who asked."""

import click

from tuneyard.client import Client
from tuneyard.commands.jobs.options import all_option, output_option, print_json, with_client
from tuneyard.commands.reporting import one
from tuneyard.views.jobs import usage_text


@click.command()
@with_client
@all_option
@output_option
def command(client: Client, *, all_namespaces: bool, output: str) -> None:
    """Show the jobs that train, their speed, and GPU hours by namespace and by the label tuneyard.io/requested-by.

    Hours of jobs that were deleted are not in it.
    """
    usage = one(lambda: client.top(all_namespaces=all_namespaces))
    if output == "json":
        print_json(
            {
                "training": [f"{job.namespace}/{job.name}" for job in usage.training],
                "gpus": usage.gpus,
                "tokensPerSecond": usage.tokens_per_second,
                "gpuHoursByNamespace": usage.by_namespace,
                "gpuHoursByRequester": usage.by_requester,
            }
        )
        return
    click.echo(usage_text(usage), nl=False)
