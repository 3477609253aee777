# SPDX-License-Identifier: Apache-2.0
"""The command `tuneyard-local`."""

from __future__ import annotations

import click

from tuneyard_local import controlplane
from tuneyard_local.cluster import Cluster
from tuneyard_local.errors import ClusterError
from tuneyard_local.parts import PARTS, build_parts, remove_build_cache
from tuneyard_local.progress import Progress


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
    if build_parts(parts or PARTS, progress) and not keep_build_cache:
        remove_build_cache(progress)


@main.command()
@NAME
@KEEP
@click.option("--mode", type=click.Choice(["native", "control-plane"]), default="native", show_default=True)
@click.option("--fake-nodes", default=0, help="Nodes played by kwok (control-plane mode).")
@click.option("--gpus", default=8, show_default=True, help="nvidia.com/gpu on each node.")
def up(name: str, keep_build_cache: bool, mode: str, fake_nodes: int, gpus: int) -> None:
    """Bring a cluster up."""
    progress = Progress()
    options = controlplane.ControlPlaneOptions(fake_nodes=fake_nodes, gpus_per_fake_node=gpus)
    if build_parts(options.parts(), progress) and not keep_build_cache:
        remove_build_cache(progress)
    cluster = controlplane.up(name, options, progress)
    print(f"export KUBECONFIG={cluster.kubeconfig}")


@main.command()
@NAME
def down(name: str) -> None:
    """End a cluster and undo all that it changed."""
    Cluster(name).down()
