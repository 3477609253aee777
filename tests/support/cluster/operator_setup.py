# SPDX-License-Identifier: Apache-2.0
"""What an operator under test needs on a cluster without nodes: fake nodes, CRDs, a runtime, claims, a server."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from tuneyard_api import names
from tuneyard_local.cluster import Cluster

from support.cluster.operator_process import until
from support.samples import runtime_spec

CRDS = Path(__file__).parents[3] / "manifests" / "crds"
# kwok plays the nodes and takes deleted pods away; everything else about a pod is the test's to say.
STAGES = """
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
    """A server with the given models; it answers 404 for any other, as vLLM does."""

    def __init__(self) -> None:
        self.models: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listed = ",".join(f'{{"id": "{model}"}}' for model in outer.models)
                self._answer(f'{{"data": [{listed}]}}')

            def do_POST(self) -> None:
                model = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
                if model in outer.models:
                    self._answer('{"choices": [{"text": "x"}]}')
                else:
                    self._answer('{"error": {"message": "no such model", "code": 404}}', status=404)

            def _answer(self, text: str, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def serve_kinds(cluster: Cluster, endpoint: str) -> None:
    """Our kinds, and runtime `hf` with a server at that address."""
    for path in sorted(CRDS.glob("*tuneyard.io.yaml")):
        cluster.apply(yaml.safe_load(path.read_text()))
    spec = runtime_spec(
        trainResources={"cpu": "1", "memory": "1Gi"},
        prepareResources={"cpu": "1", "memory": "1Gi"},
        servedModels=[
            {
                "name": "tiny",
                "base": {"pvc": {"claimName": "models", "path": "tiny"}},
                "endpoint": endpoint,
                "server": "openai",
            }
        ],
        defaults={
            "registry": {"claimName": "adapters"},
            "storageClassName": "none",
        },
    )
    runtime = {
        "apiVersion": names.API_VERSION,
        "kind": names.RUNTIME_KIND,
        "metadata": {"name": "hf"},
        "spec": spec,
    }
    cluster.apply(runtime)


def build_claim(namespace: str, claim: str) -> list[dict[str, Any]]:
    """A volume for a claim and, unless it is the workspace, which the operator makes, the claim itself."""
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{claim}"},
        "spec": {
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "storageClassName": "none",
            "hostPath": {"path": "/nowhere"},
            "claimRef": {"name": claim, "namespace": namespace},
        },
    }
    if claim.endswith("-workspace"):
        return [volume]
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "none",
    }
    metadata = {"name": claim, "namespace": namespace}
    return [volume, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}]


def make_claims(cluster: Cluster, namespace: str, *jobs: str) -> None:
    """The claims that jobs of these names (none: `a`) need, bound without a provisioner."""
    workspaces = [names.workspace_name(job) for job in jobs or ("a",)]
    claims = [build_claim(namespace, claim) for claim in ("models", "data", "adapters", *workspaces)]
    cluster.apply(*(body for bodies in claims for body in bodies))


def make_namespace(cluster: Cluster, name: str) -> None:
    """A namespace without any claim."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    cluster.apply(namespace)
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    until("the service account", lambda: cluster.get(account))
