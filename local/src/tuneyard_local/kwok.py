# SPDX-License-Identifier: Apache-2.0
"""Fake nodes: kwok plays the kubelets of nodes that carry its annotation, and never touches a real one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tuneyard_local.cluster import Cluster, Plan
from tuneyard_local.parts import program
from tuneyard_local.progress import wait_until

ANNOTATION = ("kwok.x-k8s.io/node", "fake")
LEASE_SECONDS = 40


def start(cluster: Cluster, plan: Plan, stages: Sequence[Path], args: Sequence[str]) -> None:
    """Start kwok with the given Stage files; none: its own, in which every pod does well at once."""
    cluster.processes.start(
        "kwok",
        [
            program("kwok"),
            f"--kubeconfig={cluster.folder.kubeconfig('admin')}",
            f"--manage-nodes-with-annotation-selector={'='.join(ANNOTATION)}",
            f"--node-lease-duration-seconds={LEASE_SECONDS}",
            f"--server-address=127.0.0.1:{plan.ports['kwok']}",
            *(f"--config={path.resolve()}" for path in stages),
            *args,
        ],
    )


def add_nodes(cluster: Cluster, count: int, gpus: int, first: int = 0) -> None:
    """Make fake nodes `fake-<i>` from number `first` on, each with so many `nvidia.com/gpu`."""
    size = {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": str(gpus)}
    nodes = []
    for index in range(first, first + count):
        name = f"fake-{index}"
        nodes.append(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": name,
                    "annotations": {ANNOTATION[0]: ANNOTATION[1]},
                    "labels": {"kubernetes.io/hostname": name, "type": "kwok"},
                },
                "status": {"allocatable": size, "capacity": size},
            }
        )
    cluster.apply(*nodes)


def wait_for_nodes(cluster: Cluster, count: int, seconds: float = 60) -> None:
    """Wait until so many nodes, fake or real, are Ready."""

    def are_ready() -> bool:
        cluster.processes.require_alive()
        items = (cluster.get("/api/v1/nodes") or {"items": []})["items"]
        conditions = [c for node in items for c in node["status"].get("conditions", [])]
        return bool(sum(c["type"] == "Ready" and c["status"] == "True" for c in conditions) >= count)

    wait_until(f"{count} ready nodes", are_ready, seconds, pause=0.25)
