# SPDX-License-Identifier: Apache-2.0
"""`tuneyard bootstrap`: prepares Argo CD for the first sync, by patching what is there."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from tuneyard.cluster.bootstrapping import bootstrap
from tuneyard.commands.cluster_options import connect, context_option, kubeconfig_option
from tuneyard.commands.reporting import environment_file, one, report, root_option, stop_on_errors
from tuneyard.pipeline import Built, build

ORDER = ("argocd-cm.patch", "argocd-cmd-params-cm.patch", "project", "repository-")


def bootstrap_objects(built: Built, *, with_root: bool) -> list[dict[str, Any]]:
    """The settings, project and repositories; last, if asked for, the root `platform`."""
    folder = f"argocd-apps/{built.name}/"
    files = [file for file in built.files if file.path.startswith(f"{folder}bootstrap/") and file.objects]
    place = {
        file.path: next(i for i, head in enumerate(ORDER) if Path(file.path).name.startswith(head))
        for file in files
    }
    files.sort(key=lambda file: (place[file.path], file.path))
    files += [file for file in built.files if with_root and file.path == f"{folder}platform.yaml"]
    return [dict(file.objects[0]) for file in files]


@click.command()
@click.argument("environment")
@root_option
@kubeconfig_option
@context_option
@click.option(
    "--with-root",
    is_flag=True,
    help="Also apply the root Application `platform`, which starts the installation.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--force", is_flag=True, help="Replace values that somebody else has set.")
def command(  # noqa: PLR0917  click passes them by name
    environment: str,
    root: Path,
    kubeconfig: Path | None,
    context: str | None,
    with_root: bool,
    dry_run: bool,
    force: bool,
) -> None:
    """Configure Argo CD for ENVIRONMENT: health checks, settings, project and repositories.

    Run this before the root Applications are applied. In existing ConfigMaps it sets only the keys that Tuneyard needs.
    A second run changes nothing.

    \b
    Examples:
      tuneyard bootstrap lab --dry-run
      tuneyard bootstrap lab --with-root
    """
    built = one(lambda: build(environment_file(environment, root), root))
    report(built.findings)
    stop_on_errors(built.findings)
    client = one(lambda: connect(kubeconfig, context))
    objects = bootstrap_objects(built, with_root=with_root)
    now = datetime.now(UTC).isoformat(timespec="seconds")

    def run() -> None:
        for step in bootstrap(client, objects, now, force=force, dry_run=dry_run):
            click.echo(f"{step.what}: {step.outcome}")

    one(run)
    if secrets := built.stack.secrets():
        missing = [s for s in secrets if not one(partial(client.has_secret, s.namespace, s.name))]
        if missing:
            click.echo(
                f"{len(missing)} of {len(secrets)} expected secrets are not there yet: manifests/{built.name}/secrets.md",
                err=True,
            )
