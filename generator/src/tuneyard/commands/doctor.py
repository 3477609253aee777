# SPDX-License-Identifier: Apache-2.0
"""`tuneyard doctor`: whether tools, cluster and Argo CD are what the tree needs."""

from collections.abc import Iterator
from pathlib import Path

import click

from tuneyard.cluster.diagnosis import Look, argocd_settings, repositories, tools
from tuneyard.cluster.facts import gather
from tuneyard.commands.cluster_options import connect, context_option, kubeconfig_option
from tuneyard.commands.reporting import EXIT_INPUT, environment_file, one, root_option
from tuneyard.findings import InputError
from tuneyard.pipeline import resolve_file
from tuneyard.render.argocd import chart_repositories
from tuneyard.stack.model import Stack

COLOURS = {"ok": "green", "warning": "yellow", "failure": "red"}


@click.command()
@click.argument("environment", required=False)
@root_option
@kubeconfig_option
@context_option
@click.option("--offline", is_flag=True, help="Look at nothing but this machine.")
def command(
    environment: str | None, root: Path, kubeconfig: Path | None, context: str | None, offline: bool
) -> None:
    """Look at tools, cluster, Argo CD's settings and, with ENVIRONMENT, at its repositories; exit 1 on a failure.

    \b
    Examples:
      tuneyard doctor --offline
      tuneyard doctor lab
    """
    stack = one(lambda: resolve_file(environment_file(environment, root))[1]) if environment else None
    failed = False
    for look in _looks(stack, kubeconfig, context, offline=offline):
        # Styles are dropped by click where the output is no terminal.
        click.echo(f"{click.style(f'{look.level:<8}', fg=COLOURS[look.level])} {look.what}: {look.says}")
        failed = failed or look.level == "failure"
    if failed:
        raise SystemExit(EXIT_INPUT)


def _looks(
    stack: Stack | None, kubeconfig: Path | None, context: str | None, *, offline: bool
) -> Iterator[Look]:
    yield from tools()
    if offline:
        return
    namespace = stack.environment.argocd.namespace if stack else "argocd"
    try:
        client = connect(kubeconfig, context)
        facts = gather(client, namespace)
        yield Look("ok", client.server, f"Kubernetes {facts.kubernetes}, {len(facts.crds)} CRDs")
        maps = [
            client.get(f"/api/v1/namespaces/{namespace}/configmaps/{n}")
            for n in ("argocd-cm", "argocd-cmd-params-cm")
        ]
    except InputError as error:
        yield from (Look("failure", "cluster", str(finding)) for finding in error.findings)
    else:
        settings = None if maps[0] is None else maps[0].get("data", {})
        yield from argocd_settings(facts, settings, (maps[1] or {}).get("data", {}))
    if stack:
        urls = {stack.environment.argocd.repo_url: "git"}
        urls |= {url: "helm" if "://" in url else "oci" for url, _ in chart_repositories(stack)}
        yield from repositories(urls)
