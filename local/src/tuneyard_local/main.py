# SPDX-License-Identifier: Apache-2.0
"""The command `tuneyard-local`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import click

from tuneyard_local import argo_workflows, argocd, controlplane, native
from tuneyard_local.cluster import Cluster
from tuneyard_local.controlplane import ControlPlaneOptions
from tuneyard_local.demo import gitops, main_job, pipeline
from tuneyard_local.errors import ClusterError
from tuneyard_local.packages import install_packages, missing_packages
from tuneyard_local.parts import PARTS, build_parts, remove_build_cache
from tuneyard_local.progress import Progress
from tuneyard_local.providers import Native, provider_of
from tuneyard_local.requirements import (
    missing_for_control_plane,
    missing_for_gitops,
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


NAME = click.option("--name", default="tuneyard", show_default=True, help="Name of the cluster.")
PROVIDER = click.option(
    "--provider",
    type=click.Choice(["native", "kind", "existing"]),
    default="native",
    show_default=True,
    help="native: processes on this machine; kind: containers of Docker; existing: a cluster of yours.",
)
KEEP = click.option("--keep-build-cache", is_flag=True, help="Keep Go's caches after a build (several GB).")


@click.group(cls=_Group)
def main() -> None:
    """Run a real local Kubernetes cluster to try and test Tuneyard."""


@main.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@KEEP
def build(parts: tuple[str, ...], keep_build_cache: bool) -> None:
    """Build the PARTS that are not cached yet.

    If no part is named, all parts are built.
    """
    progress = Progress()
    _build(parts or PARTS, progress, keep_build_cache)


@main.command()
@NAME
@PROVIDER
@KEEP
@click.option(
    "--mode",
    type=click.Choice(["nodes", "control-plane"]),
    default="nodes",
    show_default=True,
    help="Real nodes, or an API server and its controllers alone.",
)
@click.option("--nodes", default=1, show_default=True, help="Number of real nodes.")
@click.option(
    "--fake-nodes",
    default=0,
    show_default=True,
    help="Number of nodes that kwok simulates (mode control-plane).",
)
@click.option(
    "--gpus", default=8, show_default=True, help="Number of fake GPUs (nvidia.com/gpu) on each node."
)
@click.option("--context", help="kubeconfig context (provider existing).")
@click.option("--yes", is_flag=True, help="Do not ask before changing the machine.")
def up(**options: Any) -> None:
    """Start a cluster.

    The command first shows what it will change on the machine, and asks.
    """
    progress = Progress()
    Cluster(options["name"]).require_absent()
    if options["mode"] == "control-plane":
        require(missing_for_control_plane())
        plane = ControlPlaneOptions(fake_nodes=options["fake_nodes"], gpus_per_fake_node=options["gpus"])
        _build(plane.parts(), progress, options["keep_build_cache"])
        kubeconfig = controlplane.up(options["name"], plane, progress).kubeconfig
    else:
        provider = provider_of(options, os.environ)
        if isinstance(provider, Native):
            _prepare_machine(provider, progress, options["yes"], options["keep_build_cache"])
        kubeconfig = provider.up(progress)
    print(f"export KUBECONFIG={kubeconfig}")


def _prepare_machine(
    provider: Native, progress: Progress, is_agreed: bool, keep_build_cache: bool, *more_parts: str
) -> None:
    require(missing_for_native())
    print("\n".join(native.describe_changes(provider.name, provider.options.nodes)), file=sys.stderr)
    if not is_agreed:
        click.confirm("Go on?", abort=True, err=True)
    if missing := missing_packages():
        install_packages(missing, progress)
    _build((*native.NATIVE_PARTS, *more_parts), progress, keep_build_cache)


def _build(parts: Iterable[str], progress: Progress, keep_build_cache: bool) -> None:
    if build_parts(parts, progress) and not keep_build_cache:
        remove_build_cache(progress)


@main.command()
@NAME
@PROVIDER
def down(name: str, provider: str) -> None:
    """Stop a cluster and undo all its changes.

    This also works on a cluster that was started only in part.
    """
    if not Cluster(name).is_there:
        print(f"no cluster {name!r} is here")
        return
    provider_of(
        {"provider": provider, "name": name, "nodes": 1, "gpus": 0, "context": "-"}, os.environ
    ).down()
    print(f"cluster {name!r} is gone")


@main.command()
@NAME
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(name: str, as_json: bool) -> None:
    """Show nodes, components, versions and memory."""
    found = gather_status(Cluster(name))
    print(json.dumps(asdict(found), indent=1) if as_json else render_status(found))
    if not found.is_healthy:
        raise SystemExit(1)


@main.command()
@NAME
@click.argument("of")
@click.option("--follow", "-f", is_flag=True, help="Keep printing new lines.")
def logs(name: str, of: str, follow: bool) -> None:
    """Show the log of a component or of a node.

    OF is a component (kube-apiserver, kubelet-node-0, ...) or a node (node-0), which stands for all its components.
    """
    paths = log_files(Cluster(name), of)
    command = ["tail", "-n", "200", *(["-F"] if follow else []), *map(str, paths)]
    os.execvp(command[0], command)  # noqa: S606 - tail is the rest of this command


@main.command()
@KEEP
@click.option("--yes", is_flag=True, help="Do not ask before changing the machine.")
def demo(keep_build_cache: bool, yes: bool) -> None:
    """Turn ten lines of YAML into a served adapter.

    The demo starts a cluster, installs the operator, applies a FineTuneJob and asks base and tuned model.
    """
    progress = Progress()
    if not Cluster(main_job.CLUSTER).is_there:
        size = native.NativeOptions(nodes=main_job.NODES, gpus=main_job.GPUS)
        _prepare_machine(Native(main_job.CLUSTER, size), progress, yes, keep_build_cache, "helm")
    main_job.run(progress)


@main.command("demo-gitops")
@KEEP
@click.option("--yes", is_flag=True, help="Do not ask before changing the machine.")
def demo_gitops(keep_build_cache: bool, yes: bool) -> None:
    """Let Argo CD install the operator from git.

    The demo starts a cluster with Argo CD, which follows a rendered tree; then a FineTuneJob in git trains.
    """
    progress = Progress()
    require(missing_for_gitops())
    if not Cluster(gitops.CLUSTER).is_there:
        _prepare_machine(Native(gitops.CLUSTER, gitops.SIZE), progress, yes, keep_build_cache, *argocd.PARTS)
    gitops.run(progress)


@main.command("demo-pipeline")
@KEEP
@click.option("--yes", is_flag=True, help="Do not ask before changing the machine, and approve the adapter.")
def demo_pipeline(keep_build_cache: bool, yes: bool) -> None:
    """Turn raw records into an approved adapter by one form.

    The demo starts a cluster with Argo Workflows, submits `finetune-pipeline` and follows it to the served adapter.
    """
    progress = Progress()
    if not Cluster(pipeline.CLUSTER).is_there:
        parts = ("helm", *argo_workflows.PARTS)
        _prepare_machine(Native(pipeline.CLUSTER, pipeline.SIZE), progress, yes, keep_build_cache, *parts)
    pipeline.run(progress, is_agreed=yes)


@main.command("demo-down")
def demo_down() -> None:
    """Remove what the demos made, except the caches."""
    main_job.remove()
    gitops.remove()
    pipeline.remove()
    print("the demo is removed; its caches are kept (`make clean` removes them)")
