# SPDX-License-Identifier: Apache-2.0
"""The operator against a real API server, Job controller and scheduler, on two fake nodes of four GPUs."""

import os
import sys
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE / "harness"), str(_HERE.parent / "reconcile" / "fakes")]

import yaml  # noqa: E402
from operator_process import JobOnCluster, OperatorProcess, restricted_kubeconfig, until  # noqa: E402
from operator_samples import runtime_spec  # noqa: E402
from tuneyard_api import names  # noqa: E402
from tuneyard_local.cluster import Cluster  # noqa: E402
from tuneyard_local.controlplane import ControlPlane, ControlPlaneOptions  # noqa: E402

# kwok plays the nodes and takes deleted pods away; everything else about a pod is the test's to say.
_STAGES = """
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-ends}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
      - {key: .metadata.deletionTimestamp, operator: Exists}
      - {key: .status.phase, operator: NotIn, values: [Failed, Succeeded]}
  next: {statusTemplate: "phase: Failed\\n"}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-goes}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
      - {key: .metadata.deletionTimestamp, operator: Exists}
      - {key: .status.phase, operator: In, values: [Failed, Succeeded]}
  next: {delete: true}
"""


class StandInServer:
    """An endpoint that lists and answers with what it is told to."""

    def __init__(self) -> None:
        self.models: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listed = ",".join(f'{{"id": "{model}"}}' for model in outer.models)
                self._answer(f'{{"data": [{listed}]}}')

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._answer('{"choices": [{"text": "x"}]}')

            def _answer(self, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="session")
def bare_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane with fake nodes, without our kinds."""
    stages = tmp_path_factory.mktemp("kwok") / "stages.yaml"
    stages.write_text(_STAGES)
    options = ControlPlaneOptions(fake_nodes=2, gpus_per_fake_node=4, kwok_stages=(stages,))
    with ControlPlane(f"operator-{os.getpid()}", options) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kubeconfig(bare_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's: what its chart gives it, and no more."""
    return restricted_kubeconfig(bare_cluster, tmp_path_factory.mktemp("operator"))


@pytest.fixture(scope="session")
def endpoint() -> Iterator[StandInServer]:
    """The inference endpoint of runtime `hf`."""
    server = StandInServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def served_cluster(bare_cluster: Cluster, endpoint: StandInServer) -> Cluster:
    """The cluster with our kinds and runtime `hf`."""
    folder = _HERE.parents[1] / "manifests" / "crds"
    for path in sorted(folder.glob("*tuneyard.io.yaml")):
        bare_cluster.apply(yaml.safe_load(path.read_text()))
    until(
        "the kinds are served", lambda: bare_cluster.get(f"/apis/{names.API_VERSION}/{names.RUNTIME_PLURAL}")
    )
    spec = runtime_spec(
        trainResources={"cpu": "1", "memory": "1Gi"},
        prepareResources={"cpu": "1", "memory": "1Gi"},
        defaults={
            "registry": {"claimName": "adapters"},
            "endpoint": endpoint.url,
            "storageClassName": "none",
        },
    )
    runtime = {
        "apiVersion": names.API_VERSION,
        "kind": names.RUNTIME_KIND,
        "metadata": {"name": "hf"},
        "spec": spec,
    }
    bare_cluster.apply(runtime)
    return bare_cluster


@pytest.fixture
def operator(served_cluster: Cluster, kubeconfig: Path, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator; what it said is shown when the test fails."""
    process = OperatorProcess(kubeconfig, tmp_path / "operator.log")
    yield process
    process.kill()
    print(process.log.read_text() if process.log.exists() else "the operator was never started")


@pytest.fixture
def job(served_cluster: Cluster) -> Iterator[JobOnCluster]:
    """A FineTuneJob (not yet applied) in a namespace with the claims that it names, bound without a provisioner."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    served_cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    )
    until(
        "the service account",
        lambda: served_cluster.get(f"/api/v1/namespaces/{name}/serviceaccounts/default"),
    )
    job = JobOnCluster(served_cluster, name)
    for claim in ("models", "data", "adapters", "a-workspace"):
        bind_claim(served_cluster, name, claim)
    yield job
    served_cluster.kubectl("delete", "namespace", name, "--wait=false")


def bind_claim(cluster: Cluster, namespace: str, claim: str) -> None:
    """A volume for a claim and, unless it is the workspace, which the operator makes, the claim itself."""
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{claim}"},
        "spec": {
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "none",
            "hostPath": {"path": "/nowhere"},
            "claimRef": {"name": claim, "namespace": namespace},
        },
    }
    cluster.apply(volume)
    if claim != "a-workspace":
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "none",
        }
        metadata = {"name": claim, "namespace": namespace}
        cluster.apply(
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
        )
