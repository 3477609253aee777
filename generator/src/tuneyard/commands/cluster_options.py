# SPDX-License-Identifier: Apache-2.0
"""Options of every command that talks to a cluster, and the client that they make."""

from pathlib import Path

import click

from tuneyard.cluster.client import ClusterClient

kubeconfig_option = click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Instead of KUBECONFIG.",
)
context_option = click.option("--context", help="Context of the kubeconfig; else its current one.")


def connect(kubeconfig: Path | None, context: str | None) -> ClusterClient:
    """The cluster that the options mean.

    Raises:
        InputError: no configuration, or the extra is not installed.
    """
    return ClusterClient(kubeconfig, context)
