# SPDX-License-Identifier: Apache-2.0
"""A real node of a local cluster that is gone: no kubelet, and nothing that ran in its pods runs any more."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from containers import send
from tuneyard_local.cluster import Cluster
from tuneyard_local.progress import wait_until

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
"""The taint by which a person says that a node is off: only then are its pods given up."""


@contextmanager
def lost(cluster: Cluster, node: str) -> Iterator[None]:
    """Within the block the node is gone; afterwards it is back, ready, and empty of what ran there."""
    cluster.processes.kill(f"kubelet-{node}")
    send(processes_on(cluster, node))
    try:
        yield
    finally:
        cluster.processes.start_again(f"kubelet-{node}")
        cluster.kubectl("taint", "nodes", node, f"{OUT_OF_SERVICE}-")
        wait_until(f"{node} to be back", lambda: is_ready(cluster, node), 90)


def give_up(cluster: Cluster, node: str) -> None:
    """What a person does who knows that a node will not come back."""
    done = cluster.kubectl("taint", "nodes", node, f"{OUT_OF_SERVICE}=nodeshutdown:NoExecute")
    assert done.returncode == 0, done.stderr


def processes_on(cluster: Cluster, node: str) -> list[int]:
    """All processes of the node's pods, the sandboxes' own included."""
    mark, found = f"{cluster.plan.cgroup}/{node}/", []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                groups = (entry / "cgroup").read_text()
            except OSError:
                continue
            if mark in groups:
                found.append(int(entry.name))
    return found


def is_ready(cluster: Cluster, node: str) -> bool:
    """By the node's own word, and with its GPUs."""
    status = (cluster.get(f"/api/v1/nodes/{node}") or {"status": {}})["status"]
    ready = {each["type"]: each["status"] for each in status.get("conditions", ())}.get("Ready")
    return ready == "True" and status["allocatable"].get("nvidia.com/gpu") == str(cluster.plan.gpus)
