# SPDX-License-Identifier: Apache-2.0
"""Records and undoes what real nodes change on the machine outside their own folder.

Little is left to undo: pods, bridge, rules and mounts live in network and mount namespaces that vanish with
their last process. What remains are one link, cgroups, a few mount points and sysctls.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from tuneyard_local.errors import ClusterError
from tuneyard_local.paths import state_root

CGROUPS = Path("/sys/fs/cgroup")
V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")

KUBELET_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""Sysctls that a kubelet sets, and their values (pkg/kubelet/cm, setupKernelTunables)."""

INOTIFY = "fs/inotify/max_user_instances"
INOTIFY_INSTANCES = 1024
"""Linux allows a user 128, which three nodes beside other clusters use up: then a kubelet that starts again ends."""

CHANGED_SYSCTLS = {**KUBELET_SYSCTLS, INOTIFY: str(INOTIFY_INSTANCES)}
"""All that a cluster of real nodes changes."""


MOUNT_POINTS = (
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/run/containerd",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
)
"""Folders over which each node mounts its own; they must exist, and stay empty, on the machine."""


def lock_file() -> Path:
    """The lock that is held while a native cluster acquires or releases networks, mount points or sysctls."""
    return state_root() / "clusters" / ".machine.lock"


def _sysctl_record() -> Path:
    return state_root() / "sysctls-before.json"


def _folder_record() -> Path:
    return state_root() / "folders-made.json"


def missing_mount_points() -> list[str]:
    """Those of the nodes' mount points that this machine lacks, and that `prepare` makes."""
    return [folder for folder in MOUNT_POINTS if not Path(folder).exists()]


def prepare() -> None:
    """Write down what the first native cluster will change, then make the mount points.

    A record that exists is kept: it tells of the machine before any cluster.
    """
    _sysctl_record().parent.mkdir(parents=True, exist_ok=True)
    if not _sysctl_record().exists():
        before = {
            name: _sysctl(name).read_text().strip() for name in CHANGED_SYSCTLS if _sysctl(name).exists()
        }
        _sysctl_record().write_text(json.dumps(before, indent=1))
    if _sysctl(INOTIFY).exists() and int(_sysctl(INOTIFY).read_text()) < INOTIFY_INSTANCES:
        _sysctl(INOTIFY).write_text(str(INOTIFY_INSTANCES))
    if not _folder_record().exists():
        _folder_record().write_text(json.dumps(missing_mount_points()))
    for folder in MOUNT_POINTS:
        Path(folder).mkdir(parents=True, exist_ok=True)


def restore() -> None:
    """Undo `prepare`, and what kubelets have set since, after the last native cluster has ended.

    Not before: removing a mount point takes away what other clusters have mounted there. What somebody else has
    changed or put there in the meantime stays.
    """
    if _sysctl_record().exists():
        for name, before in json.loads(_sysctl_record().read_text()).items():
            ours = CHANGED_SYSCTLS[name]
            if before != ours and _sysctl(name).read_text().strip() == ours:
                _sysctl(name).write_text(before)
        _sysctl_record().unlink()
    if _folder_record().exists():
        for folder in json.loads(_folder_record().read_text()):
            with contextlib.suppress(OSError):  # It now has files of somebody else.
                Path(folder).rmdir()
        _folder_record().unlink()


def _sysctl(name: str) -> Path:
    return Path("/proc/sys") / name


def is_cgroup_v2() -> bool:
    """Whether the machine has the unified hierarchy alone."""
    return (CGROUPS / "cgroup.controllers").exists()


def cgroup_hierarchies() -> list[Path]:
    """The roots of all cgroup hierarchies: one with v2, one per controller with v1."""
    if is_cgroup_v2():
        return [CGROUPS]
    return sorted(
        path for path in CGROUPS.iterdir() if not path.is_symlink() and (path / "cgroup.procs").exists()
    )


def make_cgroup(cgroup: str) -> None:
    """Make a cgroup (`/a/b`) in every hierarchy, able to hold pods: cpus and memory nodes, or controllers."""
    for hierarchy in cgroup_hierarchies():
        at = hierarchy
        for word in Path(cgroup.lstrip("/")).parts:
            if is_cgroup_v2():
                offered = (at / "cgroup.controllers").read_text().split()
                (at / "cgroup.subtree_control").write_text(
                    " ".join(f"+{c}" for c in V2_CONTROLLERS if c in offered)
                )
            at /= word
            at.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if not is_cgroup_v2() and (at / name).exists():
                    (at / name).write_text((at.parent / name).read_text())


def remove_cgroup(cgroup: str) -> None:
    """Kill all that runs below a cgroup and remove it from every hierarchy."""
    tops = [top for hierarchy in cgroup_hierarchies() if (top := hierarchy / cgroup.lstrip("/")).is_dir()]
    end = time.monotonic() + 15
    while tops and time.monotonic() < end:
        for top in tops:
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    for pid in (Path(folder) / "cgroup.procs").read_text().split():
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(int(pid), signal.SIGKILL)
                    Path(
                        folder
                    ).rmdir()  # Refused while a killed process is still ending; the next round removes it.
        tops = [top for top in tops if top.is_dir()]
        time.sleep(0.05 if tops else 0)
    if tops:
        raise ClusterError(f"cgroups do not empty: {', '.join(map(str, tops))}")


def mounts_below(folder: Path) -> list[str]:
    """The mount points at or below a folder that this process sees."""
    points = [
        line.split()[4].replace("\\040", " ")
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ]
    return [point for point in points if point == str(folder) or point.startswith(f"{folder}/")]


def ip(*args: str) -> str:
    """Run the machine's `ip`; raises ClusterError with its message."""
    return run_in((), "/usr/sbin/ip", *args)


def run_in(enter: Iterable[str], *argv: str) -> str:
    """Run a short program in the namespaces that `enter` (words of nsenter) leads to."""
    result = subprocess.run([*enter, *argv], capture_output=True, text=True, check=False)
    if result.returncode:
        raise ClusterError(f"{' '.join(argv)}: {result.stderr.strip()}")
    return result.stdout


def has_capability(number: int) -> bool:
    """Whether this process holds a Linux capability; 24 is CAP_SYS_RESOURCE."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def has_link(name: str) -> bool:
    """Whether the machine has a network link of that name."""
    return Path("/sys/class/net", name).exists()


def undo(link: str | None, cgroup: str | None) -> None:
    """Undo what one native cluster did to the machine; its processes have ended."""
    if cgroup is not None:
        remove_cgroup(cgroup)
    if link is not None and has_link(link):
        with contextlib.suppress(
            ClusterError
        ):  # It disappears by itself a moment after the cluster's network.
            ip("link", "delete", link)
        if has_link(link):
            raise ClusterError(f"the network link {link} does not go away")
