# SPDX-License-Identifier: Apache-2.0
"""etcd, API server, controller manager and scheduler as plain processes; ready in about ten seconds.

Alone on loopback (mode `control-plane`: no root needed; nodes, if any, are played by kwok) or inside the
network of a cluster with real nodes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from tuneyard_local import kwok
from tuneyard_local.certificates import Authority, build_key_pair, write_kubeconfig
from tuneyard_local.cluster import Cluster, Plan, this_process
from tuneyard_local.network import pick_ports
from tuneyard_local.parts import CONTROL_PLANE_PARTS, build_parts, program
from tuneyard_local.paths import locked
from tuneyard_local.progress import Progress, require_room

PORT_NAMES = ("etcd", "etcd-peer", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
SERVICES = "10.96.0.0/16"
"""Network of Service addresses in a cluster without nodes that serve them."""
USERS = {
    "admin": ("system:masters", "tuneyard-admin"),
    "kube-controller-manager": (None, "system:kube-controller-manager"),
    "kube-scheduler": (None, "system:kube-scheduler"),
}


@dataclass(frozen=True)
class ControlPlaneOptions:
    """Options of a test or a benchmark."""

    fake_nodes: int = 0
    """Number of nodes that kwok simulates; 0: no kwok."""
    gpus_per_fake_node: int = 8
    kwok_stages: tuple[Path, ...] = ()
    """kwok configuration files (Stages); empty: kwok's own, in which a Job's pod succeeds at once."""
    kwok_args: tuple[str, ...] = ()
    apiserver_args: tuple[str, ...] = ()
    kcm_args: tuple[str, ...] = ()
    scheduler_args: tuple[str, ...] = ()

    def parts(self) -> tuple[str, ...]:
        """The parts that must be built first."""
        return (*CONTROL_PLANE_PARTS, *(("kwok",) if self.fake_nodes else ()))


def make_certificates(cluster: Cluster, plan: Plan, first_service: str, now: datetime) -> Authority:
    """Make authorities, certificates and kubeconfigs; returns the authority, to issue those of nodes."""
    folder = cluster.folder.certificates
    authority = Authority(folder, "ca", now)
    names = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    )
    addresses = dict.fromkeys(("127.0.0.1", plan.address, first_service))
    authority.issue(
        "kube-apiserver", "kube-apiserver", hosts=["localhost", *names, *addresses], is_client=False
    )
    authority.issue("kube-apiserver-kubelet", "kube-apiserver-kubelet", "system:masters")
    for user, (organization, common_name) in USERS.items():
        authority.issue(user, common_name, organization)
        write_kubeconfig(cluster.folder.kubeconfig(user), cluster.name, plan.server, folder, user)
    # etcd has an authority of its own: no certificate of the cluster opens it, and an API server that met
    # another cluster's etcd on its port would be refused instead of taking it for its own.
    etcd = Authority(folder, "etcd-ca", now)
    etcd.issue("etcd", "etcd", hosts=["127.0.0.1"])
    Authority(folder, "front-proxy-ca", now).issue("front-proxy", "front-proxy")
    build_key_pair(folder, "service-account")
    return authority


def start_etcd(cluster: Cluster, plan: Plan, namespaces: str | None = None) -> None:
    """Start etcd on loopback; it does not wait for the disk, as nothing here must survive a power cut."""
    pki = cluster.folder.certificates
    client = f"https://127.0.0.1:{plan.ports['etcd']}"
    peer = f"http://127.0.0.1:{plan.ports['etcd-peer']}"
    cluster.processes.start(
        "etcd",
        [
            program("etcd"),
            "--name=etcd",
            f"--data-dir={cluster.folder.root / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=etcd={peer}",
            f"--initial-cluster-token=tuneyard-{cluster.name}",
            f"--cert-file={pki / 'etcd.crt'}",
            f"--key-file={pki / 'etcd.key'}",
            f"--trusted-ca-file={pki / 'etcd-ca.crt'}",
            "--client-cert-auth",
            f"--quota-backend-bytes={4 << 30}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ],
        namespaces,
    )


def start_apiserver(
    cluster: Cluster, plan: Plan, options: ControlPlaneOptions, namespaces: str | None = None
) -> None:
    """Start the API server on the cluster's address."""
    pki = cluster.folder.certificates
    cluster.processes.start(
        "kube-apiserver",
        [
            program("kube-apiserver"),
            f"--etcd-servers=https://127.0.0.1:{plan.ports['etcd']}",
            f"--etcd-cafile={pki / 'etcd-ca.crt'}",
            f"--etcd-certfile={pki / 'etcd.crt'}",
            f"--etcd-keyfile={pki / 'etcd.key'}",
            f"--bind-address={plan.address}",
            f"--advertise-address={plan.address}",
            f"--secure-port={plan.ports['kube-apiserver']}",
            f"--cert-dir={cluster.folder.root / 'generated'}",
            f"--tls-cert-file={pki / 'kube-apiserver.crt'}",
            f"--tls-private-key-file={pki / 'kube-apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--kubelet-client-certificate={pki / 'kube-apiserver-kubelet.crt'}",
            f"--kubelet-client-key={pki / 'kube-apiserver-kubelet.key'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki / 'service-account.pub'}",
            f"--service-account-signing-key-file={pki / 'service-account.key'}",
            f"--service-cluster-ip-range={plan.services}",
            f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki / 'front-proxy.crt'}",
            f"--proxy-client-key-file={pki / 'front-proxy.key'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--profiling=false",
            *options.apiserver_args,
        ],
        namespaces,
    )


def start_controllers(
    cluster: Cluster, plan: Plan, options: ControlPlaneOptions, namespaces: str | None = None
) -> None:
    """Start controller manager and scheduler; the API server is ready."""
    pki = cluster.folder.certificates
    for name, more in (
        (
            "kube-controller-manager",
            [
                "--use-service-account-credentials=true",
                f"--service-account-private-key-file={pki / 'service-account.key'}",
                f"--root-ca-file={pki / 'ca.crt'}",
                f"--cluster-signing-cert-file={pki / 'ca.crt'}",
                f"--cluster-signing-key-file={pki / 'ca.key'}",
                *options.kcm_args,
            ],
        ),
        ("kube-scheduler", options.scheduler_args),
    ):
        kubeconfig = cluster.folder.kubeconfig(name)
        cluster.processes.start(
            name,
            [
                program(name),
                f"--kubeconfig={kubeconfig}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                "--bind-address=127.0.0.1",
                f"--secure-port={plan.ports[name]}",
                f"--cert-dir={cluster.folder.root / 'generated'}",
                "--leader-elect=false",
                "--profiling=false",
                *more,
            ],
            namespaces,
        )


def up(
    name: str, options: ControlPlaneOptions, progress: Progress, *, owner: tuple[int, int] | None = None
) -> Cluster:
    """Bring up a control plane on loopback; the parts are built. Raises ClusterError, leaving logs behind.

    `owner` is the process that it must not outlive: `down_orphans` ends it when that one is gone.
    """
    cluster = Cluster(name)
    with locked(cluster.folder.lock):
        require_room("a control plane", cluster.folder.root.parent, disk_gib=1, memory_gib=1)
        ports = pick_ports(PORT_NAMES, random.SystemRandom())
        plan = Plan(
            "control-plane", "127.0.0.1", ports, SERVICES, gpus=options.gpus_per_fake_node, owner=owner
        )
        cluster.write_plan(plan)
        make_certificates(cluster, plan, "10.96.0.1", datetime.now(UTC))
        start_etcd(cluster, plan)
        start_apiserver(cluster, plan, options)
        cluster.wait_until_ready()
        progress.say("API server ready")
        start_controllers(cluster, plan, options)
        if options.fake_nodes:
            kwok.start(cluster, plan, options.kwok_stages, options.kwok_args)
            kwok.add_nodes(cluster, options.fake_nodes, options.gpus_per_fake_node)
        cluster.wait_for_controllers()
        progress.say("controller manager works")
        if options.fake_nodes:
            kwok.wait_for_nodes(cluster, options.fake_nodes)
            progress.say(f"{options.fake_nodes} fake nodes ready")
    return cluster


class ControlPlane:
    """`with ControlPlane("name") as cluster:` builds what is missing, brings it up, and ends it for sure."""

    def __init__(
        self, name: str, options: ControlPlaneOptions | None = None, progress: Progress | None = None
    ) -> None:
        self._name, self._options = name, options or ControlPlaneOptions()
        self._progress = progress or Progress()

    def __enter__(self) -> Cluster:
        build_parts(self._options.parts(), self._progress)
        cluster = Cluster(self._name)
        cluster.require_absent()
        try:
            return up(self._name, self._options, self._progress, owner=this_process())
        except BaseException:
            cluster.down()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        Cluster(self._name).down()
