# SPDX-License-Identifier: Apache-2.0
"""`tuneyard snapshot`: a live cluster as a file, for `tuneyard check --snapshot` where it can't be reached."""

from datetime import UTC, datetime
from pathlib import Path

import click

from tuneyard.cluster.survey import as_yaml, survey
from tuneyard.commands.cluster_options import connect, context_option, kubeconfig_option
from tuneyard.commands.reporting import one


@click.command()
@click.option(
    "--argocd-namespace",
    default="argocd",
    show_default=True,
    help="Namespace in which Argo CD is looked for.",
)
@kubeconfig_option
@context_option
def command(argocd_namespace: str, kubeconfig: Path | None, context: str | None) -> None:
    """Print what environments are judged by: versions, nodes with GPUs and taints, classes, CRDs, operators, quotas.

    No Secret, ConfigMap or annotation is read, and nothing is written to the cluster. Names and labels of nodes are in
    the file, so look at it before you give it away.

    \b
    Examples:
      tuneyard snapshot > cluster.yaml
      tuneyard check lab --snapshot cluster.yaml
    """
    taken = datetime.now(UTC).isoformat(timespec="seconds")
    found = one(lambda: survey(connect(kubeconfig, context), argocd_namespace, taken))
    click.echo(as_yaml(found), nl=False)
    for path in found.unread:
        click.echo(f"warning: {path}: this user may not read it, so it is left out", err=True)
