# SPDX-License-Identifier: Apache-2.0
"""A cluster made by kind, as the tests see one of ours: TUNEYARD_CLUSTER=kind, where a Docker daemon answers.

pytest-kind makes and deletes it, with programs that are pinned here. Its credentials go into the folder that a cluster
of ours has, so that `Cluster` and kwok's fake nodes work on it as they do on ours.
"""

import base64
import json
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tuneyard_local import kwok
from tuneyard_local.cluster import Cluster, Plan, this_process
from tuneyard_local.controlplane import SERVICES, ControlPlaneOptions
from tuneyard_local.network import pick_ports
from tuneyard_local.parts import build_parts, program
from tuneyard_local.paths import script
from tuneyard_local.progress import Progress
from tuneyard_local.providers import has_docker
from tuneyard_local.requirements import missing_for_control_plane

PARTS = ("kind", "kwok")


def is_chosen() -> bool:
    """Whether TUNEYARD_CLUSTER says kind; without it the tests run on our own local cluster."""
    value = os.environ.get("TUNEYARD_CLUSTER") or "local"
    if value not in {"local", "kind"}:
        raise pytest.UsageError(f"TUNEYARD_CLUSTER: no cluster {value!r}; try one of local, kind")
    return value == "kind"


def missing_for_kind() -> str | None:
    """Why kind can't run here, in one line; None when it can."""
    if missing := missing_for_control_plane():
        return missing
    if not has_docker():
        return "kind needs a Docker daemon, and none answers `docker info`; try: unset TUNEYARD_CLUSTER"
    return None


def _kind(name: str, kubeconfig: Path | None = None) -> Any:
    from pytest_kind import KindCluster

    return KindCluster(name, kubeconfig, kind_path=program("kind"), kubectl_path=script("kubectl"))


def delete(name: str) -> None:
    """Delete what kind has by that name, if anything."""
    _kind(name).delete()


@contextmanager
def running(name: str, options: ControlPlaneOptions) -> Iterator[Cluster]:
    """A cluster whose own node takes no pods, with the fake nodes that the options ask for; deleted at the end."""
    progress = Progress()
    build_parts(PARTS, progress)
    cluster = Cluster(name)
    ports = pick_ports(("kube-apiserver", "kwok"), random.SystemRandom())
    plan = Plan("kind", "127.0.0.1", ports, SERVICES, gpus=options.gpus_per_fake_node, owner=this_process())
    cluster.write_plan(plan)
    cluster.kubeconfig.parent.mkdir()
    kind = _kind(name, cluster.kubeconfig)
    with ExitStack() as stack:
        stack.callback(cluster.down)
        stack.callback(kind.delete)
        progress.say(f"creating kind cluster {name}")
        kind.create(_write_config(cluster.folder.root / "kind.json", plan))
        _keep_credentials(cluster)
        cluster.wait_until_ready()
        cluster.wait_for_controllers()
        # Where ours has no node, or fake ones, kind has one with a kubelet: pods that a test plays must not run there.
        cluster.kubectl("cordon", "--selector", "node-role.kubernetes.io/control-plane")
        if options.fake_nodes:
            kwok.start(cluster, plan, options.kwok_stages, options.kwok_args)
            kwok.add_nodes(cluster, options.fake_nodes, options.gpus_per_fake_node)
            kwok.wait_for_nodes(cluster, options.fake_nodes + 1, 120)
        yield cluster


def _write_config(path: Path, plan: Plan) -> Path:
    networking = {"apiServerAddress": plan.address, "apiServerPort": plan.ports["kube-apiserver"]}
    config = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "networking": networking}
    path.write_text(json.dumps(config))
    return path


def _keep_credentials(cluster: Cluster) -> None:
    """Lay kind's authority and administrator, which are inside its kubeconfig, where `Cluster.get` looks for them."""
    config: dict[str, Any] = yaml.safe_load(cluster.kubeconfig.read_text())
    user = config["users"][0]["user"]
    cluster.folder.certificates.mkdir()
    for name, content in (
        ("ca.crt", config["clusters"][0]["cluster"]["certificate-authority-data"]),
        ("admin.crt", user["client-certificate-data"]),
        ("admin.key", user["client-key-data"]),
    ):
        (cluster.folder.certificates / name).write_bytes(base64.b64decode(content))
