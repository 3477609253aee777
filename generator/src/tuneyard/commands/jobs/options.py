# SPDX-License-Identifier: Apache-2.0
"""What the verbs share: kubectl's options, the client that they mean, and JSON."""

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from tuneyard.client import Client
from tuneyard.commands.cluster_options import context_option, kubeconfig_option
from tuneyard.commands.reporting import one

Command = Callable[..., Any]

namespace_option = click.option("-n", "--namespace", help="Namespace to use instead of the context's.")
all_option = click.option("-A", "--all-namespaces", is_flag=True, help="Jobs of all namespaces.")
output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Format of the output."
)
name_argument = click.argument("name")


def with_client(command: Command) -> Command:
    """Gives the command the `client` that -n, --context and --kubeconfig mean; without a cluster it ends with 1."""

    @wraps(command)
    def run(*, namespace: str | None, context: str | None, kubeconfig: Path | None, **arguments: Any) -> Any:
        client = one(lambda: Client(namespace, context=context, kubeconfig=kubeconfig))
        return command(client=client, **arguments)

    for option in (kubeconfig_option, context_option, namespace_option):
        run = option(run)
    return run


def print_json(value: Any) -> None:
    """JSON on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
