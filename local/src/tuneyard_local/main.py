# SPDX-License-Identifier: Apache-2.0
"""The command `tuneyard-local`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict

import click

from tuneyard_local import controlplane, native
from tuneyard_local.cluster import Cluster
from tuneyard_local.controlplane import ControlPlaneOptions
from tuneyard_local.errors import ClusterError
from tuneyard_local.packages import install_packages, missing_packages
from tuneyard_local.parts import PARTS, build_parts, remove_build_cache
from tuneyard_local.progress import Progress
from tuneyard_local.requirements import (
    missing_for_control_plane,
    missing_for_native,
    require,
)
from tuneyard_local.status import gather_status, log_files, render_status


class _Group(click.Group):
    """Shows ClusterError as a message, not as a trace."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ClusterError as error:
            raise click.ClickException(str(error)) from error


NAME = click.option("--name", default="tuneyard", show_default=True, help="The cluster's name.")
KEEP = click.option(
    "--keep-build-cache", is_flag=True, help="Keep Go's own caches after a build (several GB)."
)


@click.group(cls=_Group)
def main() -> None:
    """A real local Kubernetes cluster for trying and testing Tuneyard."""


@main.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@KEEP
def build(parts: tuple[str, ...], keep_build_cache: bool) -> None:
    """Build PARTS (all, when none is named) unless they are in the cache."""
    progress = Progress()
    _build(parts or PARTS, progress, keep_build_cache)


@main.command()
@NAME
@KEEP
@click.option("--mode", type=click.Choice(["native", "control-plane"]), default="native", show_default=True)
@click.option("--nodes", default=1, show_default=True, help="Real nodes (native mode).")
@click.option("--fake-nodes", default=0, show_default=True, help="Nodes played by kwok (control-plane mode).")
@click.option("--gpus", default=8, show_default=True, help="Fake nvidia.com/gpu on each node.")
@click.option("--yes", is_flag=True, help="Do not ask before changing the machine.")
def up(  # noqa: PLR0917 - one for each option
    name: str, keep_build_cache: bool, mode: str, nodes: int, fake_nodes: int, gpus: int, yes: bool
) -> None:
    """Bring a cluster up; says what it will change on the machine, and asks."""
    progress = Progress()
    Cluster(name).require_absent()
    if mode == "native":
        require(missing_for_native())
        changes = native.describe_changes(name, nodes)
        print("\n".join(changes))
        if not yes:
            click.confirm("Go on?", abort=True)
        options = native.NativeOptions(nodes, gpus)
        if missing := missing_packages():
            install_packages(missing, progress)
        _build(native.NATIVE_PARTS, progress, keep_build_cache)
        cluster: Cluster = native.up(name, options, progress)
    else:
        require(missing_for_control_plane())
        plane = ControlPlaneOptions(fake_nodes=fake_nodes, gpus_per_fake_node=gpus)
        _build(plane.parts(), progress, keep_build_cache)
        cluster = controlplane.up(name, plane, progress)
    print(f"export KUBECONFIG={cluster.kubeconfig}")


def _build(parts: Iterable[str], progress: Progress, keep_build_cache: bool) -> None:
    if build_parts(parts, progress) and not keep_build_cache:
        remove_build_cache(progress)


@main.command()
@NAME
def down(name: str) -> None:
    """End a cluster and undo all that it changed, also when it is only half there."""
    cluster = Cluster(name)
    if not cluster.is_there:
        print(f"no cluster {name!r} is here")
        return
    cluster.down()
    print(f"cluster {name!r} is gone")


@main.command()
@NAME
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(name: str, as_json: bool) -> None:
    """Show nodes, components, versions and memory of a cluster."""
    found = gather_status(Cluster(name))
    print(json.dumps(asdict(found), indent=1) if as_json else render_status(found))
    if not found.is_healthy:
        raise SystemExit(1)


@main.command()
@NAME
@click.argument("of")
@click.option("--follow", "-f", is_flag=True, help="Go on as lines come.")
def logs(name: str, of: str, follow: bool) -> None:
    """Show the log of OF: a component (kube-apiserver, kubelet-node-0, ...) or all of a node's (node-0)."""
    paths = log_files(Cluster(name), of)
    command = ["tail", "-n", "200", *(["-F"] if follow else []), *map(str, paths)]
    os.execvp(command[0], command)  # noqa: S606 - tail is the rest of this command
