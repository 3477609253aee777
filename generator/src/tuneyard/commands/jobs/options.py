# SPDX-License-Identifier: Apache-2.0
"""What the verbs share: kubectl's options, the client that they mean, and JSON."""

import json
from collections.abc import Callable
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


def cluster_options(command: Command) -> Command:
    """-n, --context and --kubeconfig."""
    for option in (kubeconfig_option, context_option, namespace_option):
        command = option(command)
    return command


def client_of(namespace: str | None, context: str | None, kubeconfig: Path | None) -> Client:
    """The client that the options mean; without a cluster the command ends with 1."""
    return one(lambda: Client(namespace, context=context, kubeconfig=kubeconfig))  # type: ignore[no-any-return]


def print_json(value: Any) -> None:
    """JSON on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
