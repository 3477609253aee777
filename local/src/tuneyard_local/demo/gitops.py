# SPDX-License-Identifier: Apache-2.0
"""`make demo-gitops`: Argo CD installs our operator from a rendered tree, and a FineTuneJob in git trains.

The tree of environments/demo.yaml is served as it is committed, with the repository's address replaced and nothing
else. What follows is what a person does by hand: patch Argo CD's settings, apply project and repository, apply the
root. The machine brings images, folders as claims and the small server, as in the other demo.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import click

from tuneyard_local import installation, native
from tuneyard_local.argocd import PARTS, ArgoCd
from tuneyard_local.cluster import Cluster
from tuneyard_local.demo.follow import TERMINAL, score_table
from tuneyard_local.demo.main_job import follow_job, kubectl, minutes
from tuneyard_local.demo.rollout import Rollout, Tree, images_of, is_settled, read_tree, why_not
from tuneyard_local.errors import ClusterError
from tuneyard_local.images import load_images, name_image
from tuneyard_local.parts import build_parts
from tuneyard_local.paths import REPOSITORY
from tuneyard_local.progress import Progress, wait_until

CLUSTER = "demo-gitops"
SIZE = native.NativeOptions(nodes=1, gpus=8)
ENVIRONMENT = "demo"
GIT_NAME = "tuneyard"
ROLLOUT_SECONDS = 420
"""Longest time for Argo CD to bring up the platform, and to report a finished job as Healthy."""


def run(progress: Progress) -> None:
    """The whole loop; raises ClusterError with the reason when Argo CD or the job does not get there."""
    started = time.monotonic()
    parts = installation.build(progress)
    build_parts(PARTS, progress)
    cluster = Cluster(CLUSTER)
    if not cluster.is_there:
        native.up(CLUSTER, SIZE, progress)
    argocd = ArgoCd(cluster)
    tree = read_tree(REPOSITORY, ENVIRONMENT, argocd.repository_url(GIT_NAME))
    install(cluster, argocd, parts, tree, progress)
    rollout = commit(cluster, argocd, tree, progress)
    statuses = follow(cluster, parts, tree, rollout, progress)
    click.echo(
        "\n".join(["", "Argo CD, in seconds since the commit:", *rollout.table(applications(cluster))])
    )
    for name, status in statuses.items():
        click.echo("\n".join(_sum_up(name, status)))
    words = installation.kubectl_words(cluster)
    click.echo(
        f"\n  time        {minutes(time.monotonic() - started)}\n\n"
        "Look around, then remove it:\n"
        f"  {words} -n argocd get applications\n"
        f"  {words} -n {tree.namespace} get ftj,jobs,pods\n"
        f"  git clone {argocd.repository_url(GIT_NAME)}\n"
        "  make demo-down"
    )


def remove() -> None:
    """Remove the demo's cluster and all its data; caches stay."""
    Cluster(CLUSTER).down()


def install(
    cluster: Cluster, argocd: ArgoCd, parts: installation.BuiltParts, tree: Tree, progress: Progress
) -> None:
    """Load images under the names in the tree, and install Argo CD with the tree's settings."""
    load_images(cluster, parts.operator, parts.trainer, parts.server)
    names = images_of(tree)
    has_new_code = name_image(cluster, parts.operator, names["operator"])
    name_image(cluster, parts.trainer, names["trainer"])
    if has_new_code:
        instance = f"app.kubernetes.io/instance={installation.RELEASE}"
        kubectl(cluster, "-n", installation.SYSTEM_NAMESPACE, "delete", "pods", "-l", instance)
    progress.say("images are on the nodes")
    if cluster.get("/api/v1/namespaces/argocd") is None:
        argocd.install()
    bootstrap = f"argocd-apps/{tree.name}/bootstrap"
    for name in ("argocd-cm", "argocd-cmd-params-cm"):
        file = str(REPOSITORY / bootstrap / f"{name}.patch.yaml")
        kubectl(cluster, "-n", "argocd", "patch", "configmap", name, "--patch-file", file)
    for path, text in sorted(tree.files.items()):
        if path.startswith(bootstrap) and not path.endswith(".patch.yaml"):
            kubectl(cluster, "apply", "-f", "-", stdin=text)
    argocd.start()
    progress.say("Argo CD runs, with the settings, project and repository of bootstrap/")


def commit(cluster: Cluster, argocd: ArgoCd, tree: Tree, progress: Progress) -> Rollout:
    """Commit the tree; the first time, apply the root."""
    repository = argocd.repository(GIT_NAME)
    revision = repository.commit(tree.files, f"environment {tree.name}", seconds=int(time.time()))
    progress.say(f"commit {revision[:12]} of {len(tree.files)} files is in {argocd.repository_url(GIT_NAME)}")
    kubectl(cluster, "apply", "-f", "-", stdin=tree.files[f"argocd-apps/{tree.name}/platform.yaml"])
    return Rollout(revision)


def applications(cluster: Cluster) -> list[dict[str, Any]]:
    """Every Application of the cluster."""
    found = cluster.get("/apis/argoproj.io/v1alpha1/namespaces/argocd/applications") or {}
    return list(found.get("items", ()))


def follow(
    cluster: Cluster, parts: installation.BuiltParts, tree: Tree, rollout: Rollout, progress: Progress
) -> dict[str, Mapping[str, Any]]:
    """Print what Argo CD and the jobs do until all are healthy; returns the status of each job by name."""
    started, jobs = time.monotonic(), str(tree.jobs["metadata"]["name"])
    namespace = f"/api/v1/namespaces/{tree.namespace}/serviceaccounts/default"
    wait_until("Argo CD to make the namespace of jobs", partial(_is_there, cluster, namespace), 240)
    installation.bind_folders(cluster, parts, tree.namespace)
    cluster.apply(*installation.build_endpoint(tree.namespace, parts.server))
    wanted = tree.named("Application").keys()
    _follow_applications(cluster, rollout, wanted - {jobs}, started, progress)
    statuses = {}
    for name in tree.job_names:
        path = f"/apis/tuneyard.io/v1alpha1/namespaces/{tree.namespace}/finetunejobs/{name}"
        wait_until(f"Argo CD to apply job {name}", partial(_is_there, cluster, path), 120)
        state = cluster.get(path).get("status", {}).get("state")
        if state in TERMINAL:
            progress.say(f"job {name} ended before ({state}); it is not trained again")
        statuses[name] = follow_job(cluster, tree.namespace, name, progress)
    _follow_applications(cluster, rollout, {jobs}, started, progress)
    return statuses


def _is_there(cluster: Cluster, path: str) -> bool:
    return cluster.get(path) is not None


def _follow_applications(
    cluster: Cluster, rollout: Rollout, wanted: set[str], started: float, progress: Progress
) -> None:
    end = time.monotonic() + ROLLOUT_SECONDS
    while True:
        found = {entry["metadata"]["name"]: entry for entry in applications(cluster)}
        for line in rollout.news(found.values(), time.monotonic() - started):
            progress.say(line)
        waiting = [n for n in wanted if n not in found or not is_settled(found[n], rollout.revision)]
        if not waiting:
            return
        if time.monotonic() > end:
            reasons = [why_not(found[n]) if n in found else f"{n} was not applied" for n in sorted(waiting)]
            raise ClusterError("Argo CD does not reach a healthy state:\n" + "\n".join(reasons))
        cluster.processes.require_alive()
        time.sleep(0.5)


def _sum_up(name: str, status: Mapping[str, Any]) -> list[str]:
    result = status["result"]
    stages = ", ".join(f"{each['stage']} {each['number']}" for each in status["attempts"])
    return [
        "",
        f"{name}: {status['state']}, from git; attempts: {stages}",
        *score_table(result["metrics"]),
        f"  adapter     {result['adapter']['name']}  {result['adapter']['digest']}",
        f"  endpoint    {result['endpoint']} (in the cluster), model {result['modelName']}",
    ]
