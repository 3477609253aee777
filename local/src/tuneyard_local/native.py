# SPDX-License-Identifier: Apache-2.0
"""A cluster with real nodes on this machine, in one network namespace, with pods in containers.

What the machine itself sees is one network link with two routes, cgroups, some sysctls and the
cluster's folder; see `machine`, which undoes it.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tuneyard_local import controlplane, images, machine, network, node, storage
from tuneyard_local.certificates import Authority, write_kubeconfig
from tuneyard_local.cluster import Cluster, Plan, this_process
from tuneyard_local.controlplane import ControlPlaneOptions
from tuneyard_local.errors import ClusterError
from tuneyard_local.kwok import wait_for_nodes
from tuneyard_local.network import Addresses, Network
from tuneyard_local.packages import install_packages, missing_packages
from tuneyard_local.parts import build_parts, missing_parts, program
from tuneyard_local.paths import cache_root, locked
from tuneyard_local.progress import Progress, require_room, wait_until

PORTS = {
    "etcd": 2379,
    "etcd-peer": 2380,
    "kube-apiserver": 6443,
    "kube-controller-manager": 10257,
    "kube-scheduler": 10259,
}
"""The usual ports. A cluster has them to itself in its own network namespace."""
USERS = {
    "kube-proxy": "system:kube-proxy",
    "coredns": "system:coredns",
    storage.USER: storage.USER,
}
NATIVE_PARTS = ("kubernetes", "etcd", "coredns", "node-agents", "helm", "pause")
MOST_NODES = 20
GIB_PER_NODE = 0.4
BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


@dataclass(frozen=True)
class NativeOptions:
    """The size of a cluster with real nodes."""

    nodes: int = 1
    gpus: int = 8
    """Number of fake `nvidia.com/gpu` on each node."""
    control_plane: ControlPlaneOptions = field(default_factory=ControlPlaneOptions)

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MOST_NODES:
            raise ClusterError(f"nodes: 1 to {MOST_NODES} (got {self.nodes})")


class NativeCluster(Cluster):
    """A cluster with real nodes, into which images are brought by hand: there is no registry."""

    def load_images(self, *names: str, progress: Progress | None = None) -> dict[str, str]:
        """Build images (`trainer`, `operator`, `server`, or `python`, the bare base) and bring them into all nodes.

        Returns the reference of each by its name. What exists is not built, what a node has is not imported.
        """
        progress = progress or Progress()
        built = {
            name: images.build_python(progress) if name == "python" else images.build_image(name, progress)
            for name in names
        }
        images.load_images(self, *built.values())
        return {name: image.reference for name, image in built.items()}


def link_name(cluster: str) -> str:
    """The name of the machine's link into a cluster: at most 15 characters, the same each time."""
    return f"tuneyard-{hashlib.sha256(cluster.encode()).hexdigest()[:5]}"


def describe_changes(name: str, nodes: int) -> list[str]:
    """What `up` will do to the machine, for a person to agree to."""
    lines = [
        f"Cluster {name!r} with {nodes} real node(s) will change this machine:",
        f"  folder     {Cluster(name).folder.root}, about {1 + GIB_PER_NODE * nodes:.0f} GB; deleted by down",
        f"  cache      {cache_root()}, about 1 GB (base image, programs); stays",
        f"  network    link {link_name(name)} with routes to two free /16 networks in 10.0.0.0/8; undone by down",
        "             (bridge, rules and pods are in a network namespace, cut off from the internet)",
        f"  cgroups    /tuneyard-{name} in each hierarchy; undone by down",
        f"  sysctls    {', '.join(machine.CHANGED_SYSCTLS)}; restored by down of the last cluster",
    ]
    if made := machine.missing_mount_points():
        lines.append(f"  mounts     empty folders {', '.join(made)}; removed by down of the last cluster")
    if packages := missing_packages():
        lines.append(
            f"  packages   apt-get install {' '.join(packages)} (may start Debian's containerd); stay"
        )
    if missing := missing_parts(NATIVE_PARTS):
        lines.append(
            f"  build      {', '.join(missing)}: up to 8 minutes and 8 GB, most of it removed afterwards"
        )
    return lines


def up(
    name: str, options: NativeOptions, progress: Progress, *, owner: tuple[int, int] | None = None
) -> NativeCluster:
    """Bring up a cluster with real nodes; packages are installed and parts are built.

    Raises ClusterError, leaving logs behind until `down`; fails closed on what is not its own.
    """
    cluster = NativeCluster(name)
    with locked(cluster.folder.lock):
        cluster.require_absent()
        require_room("a cluster", cluster.folder.root.parent, 1 + GIB_PER_NODE * options.nodes, 1.5)
        pause = images.build_pause(progress)
        with locked(machine.lock_file()):  # Two clusters must not pick the same networks.
            plan = _take_machine(cluster, options, owner)
            enter = cluster.processes.enter(node.NETWORK)
            pods, services = Network(plan.pods or ""), Network(plan.services)
            network.build_cluster_network(plan.link or "", pods, services, len(plan.nodes), enter=enter)
        authority = controlplane.make_certificates(cluster, plan, str(services[1]), datetime.now(UTC))
        _make_users(cluster, plan, authority)
        controlplane.start_etcd(cluster, plan, node.NETWORK)
        controlplane.start_apiserver(cluster, plan, options.control_plane, node.NETWORK)
        with ThreadPoolExecutor() as pool:  # Raises the error of any of them.
            list(pool.map(lambda index: _start_runtime(cluster, plan, index, pause), range(len(plan.nodes))))
        progress.say("containerd answers")
        cluster.wait_until_ready()
        progress.say("API server ready")
        controlplane.start_controllers(cluster, plan, options.control_plane, node.NETWORK)
        for index in range(len(plan.nodes)):
            node.start_kubelet(cluster, plan, index, authority)
        _start_kube_proxy(cluster, plan)
        _start_dns(cluster, plan)
        storage.start_provisioner(cluster, node.NETWORK)
        wait_for_nodes(cluster, len(plan.nodes), 90)
        wait_until("the GPUs", lambda: has_gpus(cluster, plan), 60, pause=0.25)
        cluster.wait_for_controllers()
        progress.say(f"{len(plan.nodes)} nodes ready, {plan.gpus} fake GPUs each")
    return cluster


def _take_machine(cluster: Cluster, options: NativeOptions, owner: tuple[int, int] | None) -> Plan:
    link, cgroup = link_name(cluster.name), f"/tuneyard-{cluster.name}"
    problems = [f"a network link {link} exists that is not ours"] if machine.has_link(link) else []
    problems += [
        f"a cgroup {hierarchy}{cgroup} exists that is not ours"
        for hierarchy in machine.cgroup_hierarchies()
        if Path(f"{hierarchy}{cgroup}").exists()
    ]
    if not BRIDGE_FILTER.exists():
        problems.append("the kernel module br_netfilter is not loaded; try: modprobe br_netfilter")
    if problems:
        raise ClusterError("\n".join(problems))
    pods, services = network.pick_networks(2, network.taken_networks(), random.SystemRandom())
    plan = Plan(
        mode="native",
        address=Addresses(pods).gateway,
        ports=PORTS,
        services=str(services),
        pods=str(pods),
        nodes=node.node_names(options.nodes),
        gpus=options.gpus,
        link=link,
        cgroup=cgroup,
        owner=owner,
    )
    cluster.write_plan(plan)
    machine.prepare()
    unshare = [
        "/usr/bin/unshare",
        "--net",
        "--mount",
        "--propagation",
        "private",
        "/usr/bin/sleep",
        "infinity",
    ]
    cluster.processes.start(node.NETWORK, unshare, becomes="/usr/bin/sleep")
    return plan


def _make_users(cluster: Cluster, plan: Plan, authority: Authority) -> None:
    for user, common_name in USERS.items():
        authority.issue(user, common_name)
        write_kubeconfig(
            cluster.folder.kubeconfig(user), cluster.name, plan.server, cluster.folder.certificates, user
        )


def _start_runtime(cluster: Cluster, plan: Plan, index: int, pause: images.Image) -> None:
    node.start_runtime(cluster, plan, index, pause.reference)
    images.import_image(cluster, plan.nodes[index], pause)


def _start_kube_proxy(cluster: Cluster, plan: Plan) -> None:
    config = cluster.folder.root / "kube-proxy.json"
    config.write_text(kube_proxy_config(plan, cluster.folder.kubeconfig("kube-proxy")))
    cluster.processes.start("kube-proxy", [program("kube-proxy"), f"--config={config}"], node.NETWORK)


def kube_proxy_config(plan: Plan, kubeconfig: Path) -> str:
    """One kube-proxy serves all nodes, as they share one network namespace. It leaves conntrack's sysctls alone."""
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": plan.nodes[0],
            "clusterCIDR": plan.pods,
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
            "nodePortAddresses": ["primary"],
        },
        indent=1,
    )


def corefile(address: str, kubeconfig: Path) -> str:
    """The configuration of CoreDNS for the cluster's own names; there is no route to other names' servers."""
    return f"""cluster.local:53 in-addr.arpa:53 {{
  bind {address}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig}
    pods insecure
    ttl 1
  }}
}}
"""


def _start_dns(cluster: Cluster, plan: Plan) -> None:
    group = "rbac.authorization.k8s.io"
    read = ["list", "watch"]
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
    ]
    name = {"name": "system:coredns"}
    cluster.apply(
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": name, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": name,
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", **name},
            "subjects": [{"apiGroup": group, "kind": "User", **name}],
        },
    )
    config = cluster.folder.root / "Corefile"
    config.write_text(corefile(plan.address, cluster.folder.kubeconfig("coredns")))
    cluster.processes.start("coredns", [program("coredns"), "-conf", config], node.NETWORK)


def has_gpus(cluster: Cluster, plan: Plan) -> bool:
    """Whether every node offers all its fake GPUs."""
    nodes = (cluster.get("/api/v1/nodes") or {"items": []})["items"]
    offered = [int(item["status"].get("allocatable", {}).get("nvidia.com/gpu", 0)) for item in nodes]
    return offered == [plan.gpus] * len(plan.nodes)


@contextmanager
def running(name: str, options: NativeOptions, progress: Progress) -> Iterator[NativeCluster]:
    """A cluster with real nodes that does not outlive this process: builds what is missing, and ends it for sure."""
    NativeCluster(name).require_absent()
    if packages := missing_packages():
        install_packages(packages, progress)
    build_parts(NATIVE_PARTS, progress)
    try:
        yield up(name, options, progress, owner=this_process())
    finally:
        NativeCluster(name).down()
