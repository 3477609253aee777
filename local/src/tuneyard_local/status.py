# SPDX-License-Identifier: Apache-2.0
"""The status of a cluster, for people and for programs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tuneyard_local.cluster import Cluster
from tuneyard_local.errors import ClusterError
from tuneyard_local.node import processes_of
from tuneyard_local.records import is_alive

MIB = 1 << 20


@dataclass(frozen=True)
class ComponentStatus:
    """One process: alive or not, and its resident memory in MiB."""

    name: str
    is_alive: bool
    pid: int
    memory_mib: int
    log: str


@dataclass(frozen=True)
class NodeStatus:
    """One node as the API server knows it."""

    name: str
    is_ready: bool
    gpus: str
    version: str


@dataclass(frozen=True)
class ClusterStatus:
    """All that `tuneyard-local status` shows."""

    name: str
    mode: str
    kubeconfig: str
    server: str
    version: str | None
    """Version of the API server; None when it does not answer."""
    nodes: tuple[NodeStatus, ...]
    components: tuple[ComponentStatus, ...]
    is_healthy: bool


def memory_mib(pid: int) -> int:
    """Resident memory of a process in MiB; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // MIB


def gather_status(cluster: Cluster) -> ClusterStatus:
    """Read the status from processes and API; raises ClusterError when there is no such cluster."""
    plan = cluster.plan
    components = []
    for name, record in cluster.processes.records().items():
        alive = is_alive(record)
        memory = memory_mib(record.pid) if alive else 0
        components.append(ComponentStatus(name, alive, record.pid, memory, str(cluster.processes.log(name))))
    version = cluster.get("/version")
    nodes = []
    for item in (cluster.get("/api/v1/nodes") or {"items": []})["items"]:
        conditions = {c["type"]: c["status"] for c in item["status"].get("conditions", [])}
        gpus = item["status"].get("allocatable", {}).get("nvidia.com/gpu", "0")
        kubelet = item["status"].get("nodeInfo", {}).get("kubeletVersion", "")
        nodes.append(NodeStatus(item["metadata"]["name"], conditions.get("Ready") == "True", gpus, kubelet))
    healthy = version is not None and all(c.is_alive for c in components) and all(n.is_ready for n in nodes)
    return ClusterStatus(
        name=cluster.name,
        mode=plan.mode,
        kubeconfig=str(cluster.kubeconfig),
        server=plan.server,
        version=version["gitVersion"] if version else None,
        nodes=tuple(nodes),
        components=tuple(components),
        is_healthy=healthy,
    )


def render_status(status: ClusterStatus) -> str:
    """The status as text."""
    lines = [
        f"cluster    {status.name} ({status.mode}), {'healthy' if status.is_healthy else 'NOT HEALTHY'}",
        f"API server {status.server}, {status.version or 'does not answer'}",
        f"kubeconfig {status.kubeconfig}",
        f"memory     {sum(c.memory_mib for c in status.components)} MiB",
    ]
    for node in status.nodes:
        ready = "ready" if node.is_ready else "NOT READY"
        lines.append(f"node       {node.name:<30} {ready:<9} {node.gpus:>3} GPUs  {node.version}")
    for component in status.components:
        alive = "runs" if component.is_alive else "DEAD"
        lines.append(
            f"component  {component.name:<30} {alive:<9} {component.memory_mib:>4} MiB  pid {component.pid}"
        )
    return "\n".join(lines)


def log_files(cluster: Cluster, of: str) -> list[Path]:
    """The log files of a component, or of all components of a node; raises ClusterError with what there is."""
    plan = cluster.plan
    names = processes_of(of)[1:] if of in plan.nodes else (of,)
    files = [path for name in names if (path := cluster.processes.log(name)).exists()]
    if not files:
        known = ", ".join(cluster.processes.records())
        raise ClusterError(f"no logs of {of!r} in cluster {cluster.name!r}; try one of: {known}")
    return files
