# SPDX-License-Identifier: Apache-2.0
"""Kueue's own controller as a process on a cluster of tier cluster: its chart's objects, its rights, its webhooks.

All but the Deployment is applied as Helm renders it with the values of our catalog. The API server finds the webhooks
by a Service that names this machine, and the test brings the certificate to the controller, as a kubelet would.
"""

import base64
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tuneyard.catalog import catalog, pins
from tuneyard.catalog.tuneyard import COMPONENTS, DEFAULT_QUEUE
from tuneyard.environment.model import Environment
from tuneyard.render.tree import derived_values
from tuneyard.stack.model import Stack
from tuneyard.stack.resolve import resolve
from tuneyard_api.yaml_io import dump, load
from tuneyard_local.cluster import Cluster
from tuneyard_local.controlplane import ControlPlaneOptions
from tuneyard_local.network import pick_ports
from tuneyard_local.parts import part_files, program

from support.cluster.operator_process import until
from support.cluster.operator_setup import serve_kinds
from support.clusters import Clusters

NAMESPACE, ACCOUNT = "kueue-system", "kueue-controller-manager"
CERTIFICATE = "kueue-webhook-server-cert"
GROUP = "kueue.x-k8s.io"
API = f"/apis/{GROUP}/v1beta2"
_LEFT_OUT = {"Deployment", "Service"}
"""What needs pods."""


def _stack(gpus: Mapping[str, int]) -> Stack:
    """An environment with Kueue, and namespaces with so many GPUs each."""
    namespaces = [{"name": name, "gpus": count} for name, count in gpus.items()]
    environment = Environment.model_validate(
        {
            "name": "t",
            "argocd": {"repoUrl": "https://git.example.com/g.git"},
            "gpus": {"nodes": [{"product": "NVIDIA-L40S", "gpusPerNode": 8, "memoryGiB": 48}]},
            "storage": {"readWriteOnce": {"className": "block"}},
            "use": {"scheduler": "kueue"},
            "fineTuning": {"runtimes": [{"name": "hf"}], "namespaces": namespaces},
        }
    )
    return resolve(environment, catalog(environment), pins())


def start_queue_cluster(
    clusters: Clusters, name: str, gpus_per_node: int, stages: str, folder: Path
) -> Cluster:
    """A cluster of two fake nodes on which Kueue can run, with our kinds; kwok moves pods by `stages`, kept in `folder`."""
    file = folder / "stages.yaml"
    file.write_text(stages)
    options = ControlPlaneOptions(fake_nodes=2, gpus_per_fake_node=gpus_per_node, kwok_stages=(file,))
    why = "Kueue is a process on this machine, and its webhooks are called there"
    cluster = clusters(name, options, local_because=why)
    serve_kinds(cluster, "http://127.0.0.1:9")
    return cluster


def make_queues(cluster: Cluster, gpus: Mapping[str, int], local_queue: str = DEFAULT_QUEUE) -> None:
    """The queues that the generator renders for these namespaces; tests share a cluster, so they get a cohort of their own."""
    build = next(component.objects for component in COMPONENTS if component.name == "fine-tuning")
    assert build is not None
    queues = [entry for entry in build(_stack(gpus)) if entry["apiVersion"].startswith(GROUP)]
    for entry in queues:
        if entry["kind"] == "ClusterQueue":
            entry["spec"]["cohortName"] = "-".join(sorted(gpus))
        if entry["kind"] == "LocalQueue":
            entry["metadata"]["name"] = local_queue
    cluster.apply(*queues)


class Kueue:
    """Kueue 0.19, started, killed and started again."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self._ports = pick_ports(("webhook", "visibility", "metrics", "health"), random.SystemRandom())

    def install(self) -> None:
        """Apply the chart and start the controller."""
        here = _stack({"team": 1})
        kueue = here.component("kueue")
        assert kueue is not None
        values = derived_values(here, kueue)
        self._apply_chart(values)
        configuration = load(values["managerConfig"]["controllerManagerConfigYaml"]).value
        configuration["health"]["healthProbeBindAddress"] = f"127.0.0.1:{self._ports['health']}"
        configuration["metrics"]["bindAddress"] = f"127.0.0.1:{self._ports['metrics']}"
        configuration["webhook"] = {
            "host": "127.0.0.1",
            "port": self._ports["webhook"],
            "certDir": str(self.folder / "certificate"),
        }
        configuration["visibilityServer"] = {
            "bindAddress": "127.0.0.1",
            "bindPort": self._ports["visibility"],
        }
        configuration["leaderElection"]["resourceNamespace"] = NAMESPACE
        (self.folder / "kueue.yaml").write_text(dump(configuration))
        self._write_kubeconfig()
        self.start()

    def start(self) -> None:
        """Start, and wait until its webhooks answer."""
        self.cluster.processes.start(
            "kueue",
            [
                "/usr/bin/env",
                f"--chdir={self.folder}",  # The visibility server makes its certificate in a folder beside.
                program("kueue"),
                f"--config={self.folder / 'kueue.yaml'}",
                f"--kubeconfig={self.folder / 'kueue.kubeconfig'}",
                "--zap-log-level=2",
            ],
            becomes=str(program("kueue")),
        )
        until("Kueue's certificate", self._bring_certificate)
        until("Kueue's webhooks", self._has_webhooks)
        until("Kueue's visibility API", self._has_visibility)

    def kill(self) -> None:
        """SIGKILL."""
        self.cluster.processes.kill("kueue")

    def workloads(self, namespace: str = "") -> list[dict[str, Any]]:
        """The Workloads of a namespace, or of all."""
        place = f"/namespaces/{namespace}" if namespace else ""
        items: list[dict[str, Any]] = (self.cluster.get(f"{API}{place}/workloads") or {"items": []})["items"]
        return items

    def _apply_chart(self, values: dict[str, Any]) -> None:
        file = self.folder / "values.yaml"
        file.write_text(dump(values))
        chart = part_files("kueue") / "charts/kueue"
        argv: list[str | Path] = [
            program("helm"),
            "template",
            "kueue",
            chart,
            "--namespace",
            NAMESPACE,
            "-f",
            file,
        ]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        objects = [entry for entry in yaml.load_all(done.stdout, yaml.CSafeLoader) if entry]
        for entry in objects:
            server = "visibility" if entry["kind"] == "APIService" else "webhook"
            _call_this_machine(entry, self._ports[server])
        services = [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"type": "ExternalName", "externalName": "localhost"},
            }
            for name in ("kueue-webhook-service", "kueue-visibility-server")
        ]
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        self.cluster.apply(namespace)
        self.cluster.apply(*(entry for entry in objects if entry["kind"] == "CustomResourceDefinition"))
        rest = (entry for entry in objects if entry["kind"] not in {*_LEFT_OUT, "CustomResourceDefinition"})
        self.cluster.apply(*services, *rest)

    def _write_kubeconfig(self) -> None:
        token = self.cluster.kubectl("create", "token", ACCOUNT, "-n", NAMESPACE, "--duration=4h")
        assert token.returncode == 0, token.stderr
        config = yaml.safe_load(self.cluster.kubeconfig.read_text())
        config["users"] = [{**user, "user": {"token": token.stdout.strip()}} for user in config["users"]]
        (self.folder / "kueue.kubeconfig").write_text(yaml.safe_dump(config))

    def _bring_certificate(self) -> bool:
        self.cluster.processes.require_alive()
        path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{CERTIFICATE}"
        data = (self.cluster.get(path) or {}).get("data") or {}
        folder = self.folder / "certificate"
        folder.mkdir(exist_ok=True)
        for name, content in data.items():
            (folder / name).write_bytes(base64.b64decode(content))
        return "tls.crt" in data

    def _has_visibility(self) -> bool:
        """Whether the API server answers for Kueue's visibility server."""
        self.cluster.processes.require_alive()
        return self.cluster.kubectl("get", "--raw", "/apis/visibility.kueue.x-k8s.io/v1beta2").returncode == 0

    def _has_webhooks(self) -> bool:
        """Whether the controller takes a flavor, which its webhooks see first."""
        self.cluster.processes.require_alive()
        flavor = {"apiVersion": f"{GROUP}/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": "probe"}}
        answer = self.cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(flavor))
        return answer.returncode == 0


def _call_this_machine(entry: Any, port: int) -> None:
    """Give every reference to a Service of the controller, at any depth, the port at which it listens here."""
    if isinstance(entry, dict):
        if "service" in entry and isinstance(entry["service"], dict):
            entry["service"]["port"] = port
        for value in entry.values():
            _call_this_machine(value, port)
    elif isinstance(entry, list):
        for value in entry:
            _call_this_machine(value, port)
