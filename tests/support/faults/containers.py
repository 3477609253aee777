# SPDX-License-Identifier: Apache-2.0
"""Processes of this machine that run in the pods of a local cluster: found by their cgroup, and killed for real."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from tuneyard_local.cluster import Cluster

TRAINER, OPERATOR = "tuneyard_trainer", "tuneyard_operator.main"


def in_pods(cluster: Cluster, node: str = "") -> Iterator[tuple[int, str]]:
    """Process id and cgroups of every process in the pods of the cluster or of one node, including sandboxes."""
    mark = f"{cluster.plan.cgroup}/{node}/" if node else cluster.plan.cgroup or ""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                groups = (entry / "cgroup").read_text()
                if mark in groups:
                    yield int(entry.name), groups


def processes(cluster: Cluster, module: str) -> Iterator[tuple[int, str]]:
    """The processes whose command line names a Python module."""
    for pid, groups in in_pods(cluster):
        with contextlib.suppress(OSError):
            if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                yield pid, groups


def trainers(cluster: Cluster, pod_uid: str) -> list[int]:
    """The trainer's processes of one pod, oldest first."""
    return sorted(pid for pid, groups in processes(cluster, TRAINER) if f"pod{pod_uid}" in groups)


def operators(cluster: Cluster) -> list[int]:
    """The operator's processes."""
    return sorted(pid for pid, _ in processes(cluster, OPERATOR))


def send(pids: list[int], number: signal.Signals = signal.SIGKILL) -> bool:
    """Signal processes that may have ended already; returns whether any got the signal."""
    reached = False
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            reached = True
    return reached
