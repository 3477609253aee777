# SPDX-License-Identifier: Apache-2.0
"""The control plane alone: it comes up, works, stays apart from its neighbours and leaves nothing."""

import json
import os
import uuid
from pathlib import Path

import pytest
from tuneyard_local.cluster import Cluster, down_orphans
from tuneyard_local.controlplane import ControlPlane, ControlPlaneOptions
from tuneyard_local.errors import ClusterError
from tuneyard_local.network import is_free_port
from tuneyard_local.progress import Progress, wait_until
from tuneyard_local.records import marked_processes

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("_ours")]

STAGE = """
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-fails}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
      - {key: .status.phase, operator: NotIn, values: [Failed]}
      - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
  next: {statusTemplate: "phase: Failed\\nreason: StageSaysSo\\n"}
"""


def test_it_is_ready_with_the_pinned_version_and_default_accounts(control_plane: Cluster) -> None:
    version = json.loads(control_plane.kubectl("version", "-o", "json").stdout)
    assert version["serverVersion"]["gitVersion"] == "v1.36.3"
    assert control_plane.kubectl("get", "serviceaccount", "default", "-n", "default").returncode == 0


def test_each_test_has_a_namespace_with_its_account(control_plane: Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    wait_until("the account", lambda: control_plane.get(path) is not None, 120)


def test_kubectl_answers_with_its_own_words_on_a_bad_object(control_plane: Cluster, namespace: str) -> None:
    bad = '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"NO","namespace":"%s"}}' % namespace  # noqa: UP031
    result = control_plane.kubectl("apply", "-f", "-", stdin=bad)
    assert result.returncode != 0
    assert "metadata.name" in result.stderr


def test_clients_find_a_new_kind_as_soon_as_it_is_applied(control_plane: Cluster) -> None:
    """One as large as a WorkflowTemplate, for which an API server takes seconds."""
    group, field = (
        f"made-{uuid.uuid4().hex[:6]}.example.com",
        {"type": "string", "description": "what it is " * 10},
    )
    schema = {"type": "object", "properties": {f"field{number}": field for number in range(3000)}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"larges.{group}"},
        "spec": {
            "group": group,
            "names": {"plural": "larges", "singular": "large", "kind": "Large"},
            "scope": "Namespaced",
            "versions": [version],
        },
    }
    control_plane.apply(crd)
    found = control_plane.get(f"/apis/{group}/v1")
    control_plane.kubectl("delete", "crd", "--wait=false", crd["metadata"]["name"])
    assert [resource["kind"] for resource in found["resources"]] == ["Large"]


def test_another_cluster_beside_it_has_its_own_data_and_leaves_nothing(
    control_plane: Cluster, tmp_path: Path
) -> None:
    stages = tmp_path / "stages.yaml"
    stages.write_text(STAGE)
    options = ControlPlaneOptions(fake_nodes=2, gpus_per_fake_node=4, kwok_stages=(stages,))
    with ControlPlane(f"beside-{uuid.uuid4().hex[:6]}", options, Progress(is_quiet=True)) as cluster:
        plan, root = cluster.plan, cluster.folder.root
        assert plan.server != control_plane.plan.server
        assert control_plane.get("/api/v1/nodes")["items"] == []
        nodes = cluster.get("/api/v1/nodes")["items"]
        assert [node["status"]["allocatable"]["nvidia.com/gpu"] for node in nodes] == ["4", "4"]
        container = {"name": "c", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "4"}}}
        spec = {"containers": [container], "restartPolicy": "Never"}
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
        path = "/api/v1/namespaces/default/pods/p"
        wait_until("our stage", lambda: cluster.get(path)["status"].get("reason") == "StageSaysSo", 120)
        assert len(marked_processes(root)) == 5
        with (
            pytest.raises(ClusterError, match="exists; try: tuneyard-local down"),
            ControlPlane(cluster.name),
        ):
            pass
        assert cluster.get("/readyz") == "ok", "a refused second start must not end the first"
    assert marked_processes(root) == []
    assert not root.exists()
    assert [name for name, port in plan.ports.items() if not is_free_port(port)] == []
    assert control_plane.get("/readyz") == "ok"


def test_a_stopped_process_starts_again_with_its_data(control_plane: Cluster, namespace: str) -> None:
    control_plane.processes.kill("kube-apiserver")
    assert control_plane.get("/readyz") is None
    with pytest.raises(ClusterError, match="kube-apiserver has died"):
        control_plane.processes.require_alive()
    control_plane.processes.start_again("kube-apiserver")
    control_plane.wait_until_ready()
    assert control_plane.get(f"/api/v1/namespaces/{namespace}") is not None


def test_what_a_killed_session_left_is_ended_by_the_next(control_plane: Cluster) -> None:
    orphan = Cluster(f"orphan-{uuid.uuid4().hex[:6]}")
    gone = control_plane.plan.__class__(**{**vars(control_plane.plan), "owner": (os.getpid(), 1)})
    orphan.write_plan(gone)
    orphan.processes.start("sleeper", ["/usr/bin/sleep", "600"])
    assert orphan.name in down_orphans()
    assert marked_processes(orphan.folder.root) == []
    assert not orphan.is_there
    assert control_plane.get("/readyz") == "ok", "its own session is alive"
