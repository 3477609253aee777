# SPDX-License-Identifier: Apache-2.0
"""One cluster as seen from outside: its plan, how to reach it, and how to end it.

The plan is written before anything is made, so that `down` after a crash half-way through `up` knows all
that may exist.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuneyard_local import machine
from tuneyard_local.errors import ClusterError
from tuneyard_local.paths import ClusterFolder, cluster_names, locked, script
from tuneyard_local.progress import wait_until
from tuneyard_local.records import Processes, start_ticks

HTTP_SECONDS = 30.0
KUBECTL_SECONDS = 120.0
CTR = ("/usr/bin/ctr", "--namespace", "k8s.io")
"""containerd's command line, in the namespace of Kubernetes' images."""
CTR_SECONDS = 300.0
KINDS_SECONDS = 60.0
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
"""Header by which kubectl gets all kinds at once (aggregated discovery, Kubernetes 1.30 and later)."""


@dataclass(frozen=True)
class Plan:
    """The parts of a cluster and the resources of the machine that it takes."""

    mode: str
    """`control-plane` (no root, no nodes) or `native` (real nodes)."""
    address: str
    """Where etcd's clients, the kubelets and kubectl find the API server."""
    ports: Mapping[str, int]
    services: str
    """The network of Service addresses, e.g. 10.96.0.0/16."""
    pods: str | None = None
    nodes: tuple[str, ...] = ()
    gpus: int = 0
    """Fake GPUs on each real node."""
    link: str | None = None
    """The machine's end of the one network link into the cluster."""
    cgroup: str | None = None
    """The cgroup below which all pods run, from the hierarchy's root."""
    owner: tuple[int, int] | None = None
    """Process id and start ticks of the test run that this cluster must not outlive; None: a person's own."""

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.address}:{self.ports['kube-apiserver']}"


class Cluster:
    """A cluster by its name: its folder, processes, API and kubectl."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = ClusterFolder(name)
        self.processes = Processes(self.folder.processes, self.folder.logs, self.folder.root)

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig file of the cluster's administrator."""
        return self.folder.kubeconfig("admin")

    @property
    def is_there(self) -> bool:
        """Whether the cluster has a folder, because it is up, half up, or crashed."""
        return self.folder.root.is_dir()

    @property
    def plan(self) -> Plan:
        """The stored plan; raises ClusterError when there is no such cluster."""
        if not self.folder.record.exists():
            raise ClusterError(f"no cluster {self.name!r} is up; try: tuneyard-local up --name {self.name}")
        fields = json.loads(self.folder.record.read_text())
        known = {name: value for name, value in fields.items() if name in Plan.__dataclass_fields__}
        owner = tuple(known["owner"]) if known["owner"] else None
        return Plan(**{**known, "nodes": tuple(known["nodes"]), "owner": owner})

    def require_absent(self) -> None:
        """Raise ClusterError when the cluster has a folder already: nothing that exists is taken over."""
        if self.is_there:
            raise ClusterError(f"cluster {self.name!r} exists; try: tuneyard-local down --name {self.name}")

    def write_plan(self, plan: Plan) -> None:
        """Make the cluster's folder and write the plan down; refuses a folder that exists."""
        self.require_absent()
        self.folder.root.mkdir(parents=True, mode=0o711)
        fresh = self.folder.record.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(plan), indent=1))
        fresh.rename(self.folder.record)

    def kubectl(self, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator; the caller looks at `returncode`, `stdout` and `stderr`."""
        return subprocess.run(
            [script("kubectl"), "--kubeconfig", self.kubeconfig, *args],
            input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, capture_output=True, text=True,
            check=False, timeout=KUBECTL_SECONDS, env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )  # fmt: skip

    def ctr(self, node: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Run containerd's command line on a real node, in the namespace of Kubernetes' images."""
        return subprocess.run(
            [*self.processes.enter(node), *CTR, *args],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=CTR_SECONDS,
        )  # fmt: skip

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Server-side apply of Kubernetes objects; new kinds can be used at once. Raises ClusterError with kubectl's own words."""
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        result = self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=document)
        if result.returncode:
            raise ClusterError(f"kubectl apply: {result.stderr.strip()}")
        crds = [made for made in objects if made["kind"] == "CustomResourceDefinition"]
        if crds:
            wait_until(
                "the new kinds", lambda: _served_kinds(crds) <= self._discovered_kinds(), KINDS_SECONDS
            )

    def _discovered_kinds(self) -> set[tuple[str, str, str]]:
        """Group, version and kind of everything in discovery, where a kind appears a moment after it is served."""
        groups = (self.get("/apis", accept=DISCOVERY) or {}).get("items", ())
        return {
            (group["metadata"]["name"], version["version"], resource["responseKind"]["kind"])
            for group in groups
            for version in group["versions"]
            for resource in version.get("resources", ())
        }

    def get(self, path: str, accept: str = "*/*") -> Any:
        """The JSON (or text) answer of the API server to a path such as `/api/v1/nodes`; None when it has none."""
        folder = self.folder.certificates
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        opener.addheaders = [("Accept", accept)]
        try:
            with opener.open(self.plan.server + path, timeout=HTTP_SECONDS) as answer:
                text = answer.read().decode()
        except OSError:  # Refused, not ready and not found all mean "not yet" to callers.
            return None
        return json.loads(text) if text.startswith(("{", "[")) else text

    def wait_until_ready(self) -> None:
        """Wait for the API server; raises ClusterError at once when a process of ours has died."""

        def is_ready() -> bool:
            self.processes.require_alive()
            return bool(self.get("/readyz") == "ok")

        wait_until("the API server", is_ready, 90)

    def wait_for_controllers(self) -> None:
        """Wait until the controller manager works, which creates the default ServiceAccount."""

        def is_made() -> bool:
            self.processes.require_alive()
            return self.get("/api/v1/namespaces/default/serviceaccounts/default") is not None

        wait_until("the controller manager", is_made, 90)

    def down(self) -> None:
        """End the cluster and undo all it did to the machine; raises ClusterError if anything is left.

        Does nothing when there is no such cluster; works on one that was left half made.
        """
        with locked(self.folder.lock):
            if self.is_there:
                self._undo()
        self.folder.lock.unlink(missing_ok=True)

    def _undo(self) -> None:
        plan = self.plan if self.folder.record.exists() else None
        self.processes.stop_all()
        with locked(machine.lock_file()):
            if plan is not None and plan.mode == "native":
                machine.undo(plan.link, plan.cgroup)
            if mounts := machine.mounts_below(self.folder.root):
                raise ClusterError(
                    f"these folders are still mounted, so nothing was deleted: {', '.join(mounts)}"
                )
            if plan is not None and plan.mode == "native" and self._is_last_native():
                machine.restore()
            shutil.rmtree(self.folder.root)

    def _is_last_native(self) -> bool:
        others = [Cluster(name) for name in cluster_names() if name != self.name]
        return not any(other.folder.record.exists() and other.plan.mode == "native" for other in others)


def _served_kinds(crds: Iterable[Mapping[str, Any]]) -> set[tuple[str, str, str]]:
    """Group, version and kind of all versions that CustomResourceDefinitions serve."""
    return {
        (crd["spec"]["group"], version["name"], crd["spec"]["names"]["kind"])
        for crd in crds
        for version in crd["spec"]["versions"]
        if version["served"]
    }


def down_orphans() -> list[str]:
    """End the clusters of test runs that are no more; returns their names."""
    ended = []
    for name in cluster_names():
        cluster = Cluster(name)
        if (
            cluster.folder.record.exists()
            and (owner := cluster.plan.owner)
            and start_ticks(owner[0]) != owner[1]
        ):
            cluster.down()
            ended.append(name)
    return ended


def this_process() -> tuple[int, int]:
    """The owner in the plan of a cluster that must not outlive this process."""
    return os.getpid(), start_ticks(os.getpid()) or 0
