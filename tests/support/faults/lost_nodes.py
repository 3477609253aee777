# SPDX-License-Identifier: Apache-2.0
"""A real node of a local cluster that is gone: no kubelet, and nothing that ran in its pods runs any more."""

from collections.abc import Iterator
from contextlib import contextmanager

from tuneyard_local.cluster import Cluster
from tuneyard_local.progress import wait_until
from tuneyard_local.status import gather_status

from support.faults.containers import in_pods, send

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
"""The taint by which a person says that a node is off: only then are its pods given up."""


@contextmanager
def lost(cluster: Cluster, node: str) -> Iterator[None]:
    """Within the block the node is gone; afterwards it is back, ready, and empty of what ran there."""
    cluster.processes.kill(f"kubelet-{node}")
    send([pid for pid, _ in in_pods(cluster, node)])
    try:
        yield
    finally:
        cluster.processes.start_again(f"kubelet-{node}")
        cluster.kubectl("taint", "nodes", node, f"{OUT_OF_SERVICE}-")
        wait_until(f"{node} to be back", lambda: is_back(cluster, node), 180)


def give_up(cluster: Cluster, node: str) -> None:
    """Do what a person does who knows that a node will not come back."""
    done = cluster.kubectl("taint", "nodes", node, f"{OUT_OF_SERVICE}=nodeshutdown:NoExecute")
    assert done.returncode == 0, done.stderr


def is_back(cluster: Cluster, node: str) -> bool:
    """Whether the node reports itself ready, with its GPUs."""
    return any(
        (each.name, each.is_ready, each.gpus) == (node, True, str(cluster.plan.gpus))
        for each in gather_status(cluster).nodes
    )
