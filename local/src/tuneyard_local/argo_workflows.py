# SPDX-License-Identifier: Apache-2.0
"""Argo Workflows' own controller and server as plain processes beside a local cluster.

They are Argo's programs, unchanged, each as the only instance. Pods run where the cluster has nodes, with the executor's
image. The server is built without its page.
"""

from __future__ import annotations

import http.client
import random
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tuneyard_api.yaml_io import load

from tuneyard_local.cluster import Cluster
from tuneyard_local.network import pick_ports
from tuneyard_local.parts import part_files, program
from tuneyard_local.progress import wait_until
from tuneyard_local.records import SEARCH_PATH

PARTS = ("workflow-controller", "argoexec")
"""Parts that must be built besides those of the cluster."""
NAME = "workflow-controller"
COMMAND = "argo"
"""The part that is Argo's command line, and its server."""
SERVER = "argo-server"
NAMESPACE = "argo"
SETTINGS = {
    # Whatever scrapes it is not here, and two clusters would meet on one port.
    "metricsConfig": "enabled: false\n",
    "telemetryConfig": "enabled: false\n",
}
START_SECONDS = 60.0


class ArgoWorkflows:
    """The controller of one cluster. Call `install` once, then `start`."""

    def __init__(self, cluster: Cluster, executor_image: str) -> None:
        """`executor_image` is on the nodes, or is never pulled where no node is real."""
        self.cluster, self.executor_image = cluster, executor_image

    def install(self) -> None:
        """Bring Argo's CustomResourceDefinitions, namespace and settings to the cluster."""
        files = sorted((part_files(NAME) / "manifests/base/crds/minimal").glob("argoproj.io_*.yaml"))
        settings: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "workflow-controller-configmap", "namespace": NAMESPACE},
            "data": SETTINGS,
        }
        self.cluster.apply(
            *(_document(path) for path in files),
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        )
        self.cluster.apply(settings)

    def start(self) -> None:
        """Start the controller. Raises ClusterError."""
        path = program(NAME)
        words = [
            f"--kubeconfig={self.cluster.kubeconfig}",
            f"--namespace={NAMESPACE}",
            f"--executor-image={self.executor_image}",
            "--executor-image-pull-policy=Never",
            "--workflow-workers=4",
        ]
        setting = [f"PATH={SEARCH_PATH}", "LEADER_ELECTION_DISABLE=true"]
        self.cluster.processes.start(NAME, ["/usr/bin/env", *setting, path, *words], becomes=str(path))
        log = self.cluster.processes.log(NAME)

        def has_started() -> bool:
            self.cluster.processes.require_alive()
            return "starting leading" in log.read_text(errors="replace")

        wait_until("Argo Workflows' controller", has_started, START_SECONDS)


class ArgoServer:
    """The server of one cluster, with the CustomResourceDefinitions and settings of `ArgoWorkflows.install`."""

    def __init__(self, cluster: Cluster, kubeconfig: Path, *words: str) -> None:
        """`kubeconfig` is that of the server's own account; `words` are more of its options, such as `--auth-mode=client`."""
        self.cluster, self.kubeconfig, self.words = cluster, kubeconfig, words
        (self._port,) = pick_ports((SERVER,), random.SystemRandom()).values()

    @property
    def address(self) -> str:
        """Its host and port, as Argo's own command takes them."""
        return f"localhost:{self._port}"

    def start(self) -> None:
        """Start the server. Raises ClusterError."""
        path = program(COMMAND)
        words = ["server", f"--namespace={NAMESPACE}", f"--port={self._port}", *self.words]
        setting = [f"PATH={SEARCH_PATH}", f"KUBECONFIG={self.kubeconfig}", "HOME=/nonexistent"]
        self.cluster.processes.start(SERVER, ["/usr/bin/env", *setting, path, *words], becomes=str(path))

        def answers() -> bool:
            self.cluster.processes.require_alive()
            return self._status() in (HTTPStatus.OK, HTTPStatus.UNAUTHORIZED)

        # It says that it has started before its own gateway reaches it; until then it answers with 503.
        wait_until("Argo Workflows' server", answers, START_SECONDS)

    def _status(self) -> int:
        # The server signs its certificate itself, anew at each start.
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("localhost", self._port, context=trust, timeout=5)
        try:
            connection.request("GET", "/api/v1/version")
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def stop(self) -> None:
        """Stop the server."""
        self.cluster.processes.stop(SERVER)


def _document(path: Path) -> Any:
    return load(path.read_text(), str(path)).value
