# SPDX-License-Identifier: Apache-2.0
"""Tests of tier cluster on kind: skipped aloud without Docker, and on its kubeconfig as on a cluster of ours.

No Docker daemon is needed here: a program stands in for kind that hands out a real API server of ours.
"""

import base64
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from support import kind
from tuneyard_local.cluster import Cluster
from tuneyard_local.controlplane import ControlPlaneOptions
from tuneyard_local.network import pick_ports

NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "kinds-own", "labels": {"node-role.kubernetes.io/control-plane": ""}},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}
STAND_IN = """#!/bin/sh
echo "$*" >> {calls}
case "$*" in
  create*) for word; do case "$word" in --kubeconfig=*) cp {kubeconfig} "${{word#*=}}" ;; esac; done ;;
esac
"""


def collected(request: pytest.FixtureRequest, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/local/test_control_plane.py"]
    kept = {name: value for name, value in os.environ.items() if name != "TUNEYARD_TIERS"}
    return subprocess.run(
        words,
        cwd=request.config.rootpath,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_docker_the_tier_is_skipped_and_one_line_says_why(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    done = collected(request, TUNEYARD_CLUSTER="kind", PATH=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("TIER SKIPPED: cluster (")]
    assert line.endswith(
        "kind needs a Docker daemon, and none answers `docker info`; try: unset TUNEYARD_CLUSTER"
    )


def test_another_cluster_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEYARD_CLUSTER", "k3d")
    with pytest.raises(pytest.UsageError, match="no cluster 'k3d'; try one of local, kind"):
        kind.is_chosen()


def write_kubeconfig(cluster: Cluster, path: Path) -> None:
    """A kubeconfig as kind writes it, with certificates and key inside."""
    pki = cluster.folder.certificates
    ca, crt, key = (
        base64.b64encode((pki / name).read_bytes()).decode() for name in ("ca.crt", "admin.crt", "admin.key")
    )
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "kind-k",
        "clusters": [
            {"name": "kind-k", "cluster": {"server": cluster.plan.server, "certificate-authority-data": ca}}
        ],
        "users": [{"name": "kind-k", "user": {"client-certificate-data": crt, "client-key-data": key}}],
        "contexts": [{"name": "kind-k", "context": {"cluster": "kind-k", "user": "kind-k"}}],
    }
    path.write_text(json.dumps(config))


@pytest.mark.cluster
@pytest.mark.usefixtures("_ours")
def test_what_kind_made_is_used_as_a_cluster_of_ours(
    control_plane: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls, program = tmp_path / "calls", tmp_path / "kind"
    write_kubeconfig(control_plane, tmp_path / "kubeconfig")
    program.write_text(STAND_IN.format(calls=calls, kubeconfig=tmp_path / "kubeconfig"))
    program.chmod(0o755)

    def ports_of_the_stand_in(names: Iterable[str], rng: random.Random) -> dict[str, int]:
        return pick_ports(names, rng) | {"kube-apiserver": control_plane.plan.ports["kube-apiserver"]}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kind, "program", lambda *_: program)
    monkeypatch.setattr(kind, "build_parts", lambda *_: None)
    monkeypatch.setattr(kind, "pick_ports", ports_of_the_stand_in)
    name = f"kind-{os.getpid()}"
    control_plane.apply(NODE)
    try:
        with kind.running(name, ControlPlaneOptions(fake_nodes=1, gpus_per_fake_node=3)) as cluster:
            assert cluster.get("/readyz") == "ok"
            nodes = {node["metadata"]["name"]: node for node in cluster.get("/api/v1/nodes")["items"]}
            assert nodes["kinds-own"]["spec"]["unschedulable"] is True
            assert nodes["fake-0"]["status"]["allocatable"]["nvidia.com/gpu"] == "3"
            config = json.loads((cluster.folder.root / "kind.json").read_text())
            assert config["networking"]["apiServerPort"] == cluster.plan.ports["kube-apiserver"]
    finally:
        control_plane.kubectl("delete", "nodes", "kinds-own", "fake-0")
    created, deleted = (line for line in calls.read_text().splitlines() if not line.startswith("get "))
    assert created.startswith(f"create cluster --name={name} ")
    assert deleted.startswith(f"delete cluster --name={name} ")
    assert not Cluster(name).is_there
