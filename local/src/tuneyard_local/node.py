# SPDX-License-Identifier: Apache-2.0
"""One real node: containerd, kubelet and fake GPUs in a mount namespace of its own.

There the usual folders (/var/lib/kubelet, /run/containerd and so on) are the node's own, so that two nodes, and
the machine's own containerd, never meet; and all mounts that pods leave end with the namespace.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from tuneyard_local import machine
from tuneyard_local.certificates import Authority, write_kubeconfig
from tuneyard_local.cluster import Cluster, Plan
from tuneyard_local.network import BRIDGE, Addresses, Network
from tuneyard_local.parts import program
from tuneyard_local.progress import wait_until

SOCKET = "/run/containerd/containerd.sock"
MAX_PODS = 60
CAP_SYS_RESOURCE = 24
NETWORK = "network"
"""The process that holds the cluster's network namespace."""


def node_names(count: int) -> tuple[str, ...]:
    """The names of the real nodes."""
    return tuple(f"node-{index}" for index in range(count))


def processes_of(name: str) -> tuple[str, ...]:
    """The names of a node's processes, in the order of their start."""
    return (name, f"containerd-{name}", f"kubelet-{name}", f"device-plugin-{name}")


def containerd_config(cni_folder: Path, pause_image: str, *, may_lower_oom_score: bool) -> str:
    """The text of containerd's configuration (version 1.6)."""
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    # Without CAP_SYS_RESOURCE runc may not lower oom_score_adj, and then no pod starts at all.
    return f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [{", ".join(f'"io.containerd.snapshotter.v1.{n}"' for n in ("aufs", "btrfs", "devmapper", "zfs"))}]
[grpc]
  address = "{SOCKET}"
[{cri}]
  sandbox_image = "{pause_image}"
  stream_server_address = "127.0.0.1"
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = {"false" if may_lower_oom_score else "true"}
[{cri}.cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{cni_folder}"
[{cri}.containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
[{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


def cni_config(addresses: Addresses, index: int) -> str:
    """The CNI configuration of a node: its pods on the cluster's one bridge, from the node's own range."""
    first, last = addresses.pod_range(index)
    ranges = [
        [{"subnet": str(addresses.pods), "rangeStart": first, "rangeEnd": last, "gateway": addresses.gateway}]
    ]
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
    }
    return json.dumps({"cniVersion": "1.0.0", "name": "tuneyard", "plugins": [bridge]}, indent=1)


def kubelet_config(plan: Plan, index: int, certificates: Path, resolv_conf: Path) -> str:
    """The kubelet's configuration as JSON. Ports on loopback are off: all nodes share one network."""
    name = plan.nodes[index]
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": Addresses(Network(plan.pods or "")).node(index),
            "healthzPort": 0,
            "cgroupRoot": f"{plan.cgroup}/{name}",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "clusterDNS": [plan.address],
            "clusterDomain": "cluster.local",
            "resolvConf": str(resolv_conf),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(certificates / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(certificates / f"kubelet-{name}.crt"),
            "tlsPrivateKeyFile": str(certificates / f"kubelet-{name}.key"),
            # A laptop's disk may be nearly full, and the node must not evict its pods because of that.
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
                "nodefs.inodesFree": "1%",
            },
            "imageGCHighThresholdPercent": 100,
            # Changes of GPUs are in the node's status after two seconds instead of ten.
            "nodeStatusUpdateFrequency": "2s",
            "nodeStatusReportFrequency": "2s",
            "maxPods": MAX_PODS,
        },
        indent=1,
    )


def start_runtime(cluster: Cluster, plan: Plan, index: int, pause_image: str) -> None:
    """Make the node's namespace and start containerd in it; returns when containerd answers."""
    name = plan.nodes[index]
    folder = cluster.folder.node(name)
    mounts = []
    for target in machine.MOUNT_POINTS:
        own = folder / target.strip("/").replace("/", "-")
        own.mkdir(parents=True)
        mounts.append(f"mount --bind {shlex.quote(str(own))} {target}")
    (folder / "cni").mkdir()
    (folder / "cni" / "tuneyard.conflist").write_text(cni_config(Addresses(Network(plan.pods or "")), index))
    config = folder / "containerd.toml"
    config.write_text(
        containerd_config(
            folder / "cni", pause_image, may_lower_oom_score=machine.has_capability(CAP_SYS_RESOURCE)
        )
    )
    script = "\n".join(["set -e", *mounts, "exec /usr/bin/sleep infinity"])
    unshare = ["/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script]
    cluster.processes.start(name, unshare, NETWORK, becomes="/usr/bin/sleep")
    cluster.processes.start(f"containerd-{name}", ["/usr/bin/containerd", "--config", config], name)
    wait_until(f"containerd of {name}", lambda: is_runtime_ready(cluster, name), 30)


def is_runtime_ready(cluster: Cluster, name: str) -> bool:
    """Whether the node's containerd answers; raises ClusterError when it has died."""
    cluster.processes.require_alive()
    return cluster.ctr(name, "version").returncode == 0


def start_kubelet(cluster: Cluster, plan: Plan, index: int, authority: Authority) -> None:
    """Start the node's kubelet and its fake GPUs; the API server is ready."""
    name, address = plan.nodes[index], Addresses(Network(plan.pods or "")).node(index)
    folder, certificates = cluster.folder.node(name), cluster.folder.certificates
    authority.issue(f"kubelet-{name}", f"system:node:{name}", "system:nodes", hosts=[name, address])
    kubeconfig = cluster.folder.kubeconfig(f"kubelet-{name}")
    write_kubeconfig(kubeconfig, cluster.name, plan.server, certificates, f"kubelet-{name}")
    machine.make_cgroup(f"{plan.cgroup}/{name}")
    resolv_conf = folder / "resolv.conf"
    resolv_conf.write_text(f"nameserver {plan.address}\n")
    config = folder / "kubelet.json"
    config.write_text(kubelet_config(plan, index, certificates, resolv_conf))
    cluster.processes.start(
        f"kubelet-{name}",
        [
            program("kubelet"),
            f"--config={config}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={name}",
            f"--node-ip={address}",
            "--v=2",
        ],
        name,
    )
    if plan.gpus:
        words: list[str | Path] = [program("node-agents"), "device-plugin", f"-count={plan.gpus}"]
        cluster.processes.start(f"device-plugin-{name}", [*words, f"-sick={folder / 'sick-gpus'}"], name)
