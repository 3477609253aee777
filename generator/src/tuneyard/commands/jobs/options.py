# SPDX-License-Identifier: Apache-2.0
"""What the verbs share: kubectl's options, the client that they mean, and JSON."""

import json
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from tuneyard.client import Access, ArgoServer, Client, Forms
from tuneyard.commands.cluster_options import context_option, kubeconfig_option
from tuneyard.commands.reporting import one
from tuneyard.findings import Finding, InputError

Command = Callable[..., Any]

namespace_option = click.option("-n", "--namespace", help="Namespace to use instead of the context's.")
all_option = click.option("-A", "--all-namespaces", is_flag=True, help="Jobs of all namespaces.")
output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Format of the output."
)
_server_option = click.option(
    "--server",
    envvar="ARGO_SERVER",
    help="Argo's server instead of the API server, such as https://localhost:2746. The token is in ARGO_TOKEN.",
)
_ca_file_option = click.option(
    "--ca-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Authorities for the certificate of --server.",
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


def with_forms(command: Command) -> Command:
    """Gives the command the `forms` that --server, or else with_client's options mean; without either it ends with 1."""

    @wraps(command)
    def run(
        *,
        server: str | None,
        ca_file: Path | None,
        namespace: str | None,
        context: str | None,
        kubeconfig: Path | None,
        **arguments: Any,
    ) -> Any:
        def connect() -> Forms:
            if server:
                return _forms_at(server, ca_file, namespace or os.environ.get("ARGO_NAMESPACE"))
            return Client(namespace, context=context, kubeconfig=kubeconfig).forms

        return command(forms=one(connect), **arguments)

    for option in (kubeconfig_option, context_option, namespace_option, _ca_file_option, _server_option):
        run = option(run)
    return run


def _forms_at(server: str, ca_file: Path | None, namespace: str | None) -> Forms:
    access = Access.of(server, ca_file=ca_file)
    if not namespace:
        problem = "Argo's server knows no namespace by default"
        raise InputError([Finding("argo-server", problem, hint="-n, or ARGO_NAMESPACE")])
    return Forms(ArgoServer(access, namespace))


def print_json(value: Any) -> None:
    """JSON on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
