# SPDX-License-Identifier: Apache-2.0
"""Commands that talk to a cluster, against a real API server with Argo CD's own CRDs."""

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tuneyard.main import cli
from tuneyard_api.yaml_io import load
from tuneyard_local.cluster import Cluster
from tuneyard_local.parts import part_files

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def argocd_crds(control_plane: Cluster) -> None:
    for name in ("application", "appproject"):
        file = part_files("argo-cd") / "manifests/crds" / f"{name}-crd.yaml"
        control_plane.apply(load(file.read_text()).value)


@pytest.fixture
def argocd(control_plane: Cluster, argocd_crds: None) -> Iterator[str]:
    """A namespace with an argocd-cm that has settings of its own."""
    name = f"argocd-{uuid.uuid4().hex[:6]}"
    control_plane.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm", "namespace": name},
         "data": {"url": "https://argocd.example.com", "timeout.reconciliation": "60s"}},
        controller(name),
    )  # fmt: skip
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


def controller(namespace: str) -> dict[str, Any]:
    labels = {"app": "controller"}
    container = {"name": "c", "image": "quay.io/argoproj/argocd:v3.2.11"}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "argocd-application-controller", "namespace": namespace},
        "spec": {
            "replicas": 0,
            "serviceName": "none",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


@pytest.fixture
def root(tmp_path: Path, argocd: str) -> Path:
    """A repository with the environment `open`, whose Argo CD lives in the test's namespace."""
    for folder in ("charts/tuneyard-operator", "manifests/crds"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    text = (ROOT / "environments/open.yaml").read_text()
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments/open.yaml").write_text(
        text.replace("argocd:\n", f"argocd:\n  namespace: {argocd}\n")
    )
    return tmp_path


def run(cluster: Cluster, root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--root", str(root), "--kubeconfig", str(cluster.kubeconfig)])


def settings(cluster: Cluster, namespace: str, name: str = "argocd-cm") -> dict[str, Any]:
    return cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/{name}")["data"]


def test_bootstrap_patches_and_a_second_run_changes_nothing(
    control_plane: Cluster, argocd: str, root: Path
) -> None:
    dry = run(control_plane, root, "bootstrap", "open", "--dry-run")
    assert (dry.exit_code, "ConfigMap argocd-cm: would be changed" in dry.stdout) == (0, True), dry.output
    assert len(settings(control_plane, argocd)) == 2
    first = run(control_plane, root, "bootstrap", "open", "--with-root")
    assert first.exit_code == 0, first.output
    assert "StatefulSet argocd-application-controller: restarted" in first.stdout
    assert "6 of 6 expected secrets are not there yet" in first.stderr
    data = settings(control_plane, argocd)
    assert (data["url"], data["timeout.reconciliation"]) == ("https://argocd.example.com", "60s")
    assert "resource.customizations.health.argoproj.io_Application" in data
    again = run(control_plane, root, "bootstrap", "open", "--with-root")
    assert {line.split(": ")[1] for line in again.stdout.splitlines()} == {"unchanged"}, again.stdout
    assert settings(control_plane, argocd) == data


def test_bootstrap_overwrites_nobody_s_key_unless_forced(
    control_plane: Cluster, argocd: str, root: Path
) -> None:
    theirs = {
        "data": {"resource.customizations.health.argoproj.io_Application": "return {status = 'Healthy'}"}
    }
    control_plane.kubectl(
        "-n", argocd, "patch", "configmap", "argocd-cm", "--type=merge", "-p", json.dumps(theirs)
    )
    refused = run(control_plane, root, "bootstrap", "open")
    assert (refused.exit_code, "--force, if ours may replace it" in refused.stderr) == (1, True), (
        refused.output
    )
    assert "kubectl" in refused.stderr
    assert set(settings(control_plane, argocd)) == {"url", "timeout.reconciliation", *theirs["data"]}
    assert "another check" in run(control_plane, root, "doctor", "open").stdout
    assert run(control_plane, root, "bootstrap", "open", "--force").exit_code == 0
    assert "comparedTo" in settings(control_plane, argocd)[next(iter(theirs["data"]))]


def test_bootstrap_leaves_a_repository_to_who_has_it(control_plane: Cluster, argocd: str, root: Path) -> None:
    secret = {
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "mine", "namespace": argocd, "labels": {"argocd.argoproj.io/secret-type": "repository"}},
        "stringData": {"type": "git", "url": "https://github.com/example/tuneyard.git", "password": "x"},
    }  # fmt: skip
    control_plane.apply(secret)
    result = run(control_plane, root, "bootstrap", "open")
    assert "left out, because Secret mine has this repository already" in result.stdout


def test_bootstrap_without_argo_cd_says_so(control_plane: Cluster, argocd: str, root: Path) -> None:
    control_plane.kubectl("-n", argocd, "delete", "configmap", "argocd-cm")
    result = run(control_plane, root, "bootstrap", "open")
    assert (result.exit_code, "Argo CD is not installed there" in result.stderr) == (1, True)


def test_doctor_before_and_after_bootstrap(control_plane: Cluster, argocd: str, root: Path) -> None:
    before = run(control_plane, root, "doctor", "open")
    assert (before.exit_code, "waves do not wait; try `tuneyard bootstrap`" in before.stdout) == (1, True)
    run(control_plane, root, "bootstrap", "open")
    after = run(control_plane, root, "doctor", "open").stdout
    lines = {
        line[:8].strip()
        for line in after.splitlines()
        if "http" not in line or str(control_plane.plan.server) in line
    }
    assert "failure" not in lines, after
    assert "3.2.11" in after


def test_status_shows_waves_and_what_blocks(control_plane: Cluster, argocd: str, root: Path) -> None:
    assert run(control_plane, root, "status", "open").exit_code == 1
    assert run(control_plane, root, "render", "open").exit_code == 2  # no cluster option there
    assert CliRunner().invoke(cli, ["render", "open", "--root", str(root)]).exit_code == 0
    folder = root / "argocd-apps/open/platform"
    for name in ("namespaces", "versitygw-server"):
        control_plane.apply(load((folder / f"{name}.yaml").read_text()).value)
    status = {
        "status": {
            "sync": {"status": "Synced"},
            "health": {"status": "Degraded", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            "resources": [{"kind": "Deployment", "name": "versitygw-server", "version": "v1",
                           "health": {"status": "Degraded", "message": "out of disk"}}],
        }
    }  # fmt: skip
    done = control_plane.kubectl(
        "-n",
        argocd,
        "patch",
        "applications.argoproj.io",
        "open-versitygw-server",
        "--type=merge",
        "-p",
        json.dumps(status),
    )
    assert done.returncode == 0, done.stderr
    shown = run(control_plane, root, "status", "open")
    assert "Deployment/versitygw-server: out of disk" in shown.stdout
    assert "0 of 2 ready" in shown.stderr
    rows = json.loads(run(control_plane, root, "status", "open", "--format", "json").stdout)
    assert [row["name"] for row in rows] == ["open-namespaces", "open-versitygw-server"]
    assert run(control_plane, root, "status", "open", "--exit-code").exit_code == 1


@pytest.fixture
def gpu_node(control_plane: Cluster) -> Iterator[str]:
    name = f"gpu-{uuid.uuid4().hex[:6]}"
    labels = {
        "nvidia.com/gpu.product": "NVIDIA-L40S",
        "nvidia.com/gpu.memory": "46068",
        "nvidia.com/gpu.count": "4",
    }
    control_plane.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
    storage = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast-block"},
               "provisioner": "example.com/none"}  # fmt: skip
    control_plane.apply(storage)
    yield name
    control_plane.kubectl("delete", "node", name)
    control_plane.kubectl("delete", "storageclass", "fast-block")


def test_init_reads_the_cluster_and_check_holds_it_against_it(
    control_plane: Cluster, root: Path, gpu_node: str
) -> None:
    done = run(control_plane, root, "init", "live", "--from-cluster", "--storage-class", "fast-block")
    assert done.exit_code == 0, done.output
    written = load((root / "environments/live.yaml").read_text()).value
    assert written["gpus"]["nodes"] == [
        {"product": "NVIDIA-L40S", "nodes": 1, "gpusPerNode": 4, "memoryGiB": 45}
    ]
    assert written["use"] == {"gpu": "existing-gpus"}
    fine = run(control_plane, root, "check", "live", "--cluster")
    assert "live-gpus" not in json.dumps(
        json.loads(run(control_plane, root, "check", "live", "--cluster", "--format", "json").stdout)
    )
    assert fine.exit_code == 0, fine.output
    wrong = run(control_plane, root, "check", "open", "--cluster", "--format", "json")
    rules = {row["rule"]: row for row in json.loads(wrong.stdout)}
    assert {"live-storage-class", "live-secrets"} <= set(rules)
    assert (rules["live-storage-class"]["line"], wrong.exit_code) == (12, 1)


def test_a_snapshot_judges_as_the_cluster_does_and_holds_nothing_secret(
    control_plane: Cluster, root: Path, gpu_node: str, argocd: str
) -> None:
    taint = {"spec": {"taints": [{"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}]}}
    control_plane.kubectl("patch", "node", gpu_node, "-p", json.dumps(taint))
    control_plane.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": argocd},
         "stringData": {"password": "never-in-a-snapshot"}},
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small", "namespace": argocd},
         "spec": {"hard": {"requests.nvidia.com/gpu": "2"}}},
    )  # fmt: skip
    arguments = ["snapshot", "--argocd-namespace", argocd, "--kubeconfig", str(control_plane.kubeconfig)]
    taken = CliRunner().invoke(cli, arguments)
    assert (taken.exit_code, taken.stderr) == (0, "")
    assert "never-in-a-snapshot" not in taken.stdout
    kept = load(taken.stdout).value
    [node] = [node for node in kept["nodes"] if node["name"] == gpu_node]
    assert (node["product"], "dedicated=gpu:NoSchedule" in node["taints"]) == ("NVIDIA-L40S", True)
    assert {"namespace": argocd, "name": "small", "hard": {"requests.nvidia.com/gpu": "2"}} in kept["quotas"]
    crds = {crd["name"]: crd for crd in kept["crds"]}
    assert crds["applications.argoproj.io"]["served"] == ["v1alpha1"]
    assert kept["facts"]["argocd"] == "3.2.11"
    file = root / "cluster.yaml"
    file.write_text(taken.stdout)
    init = run(control_plane, root, "init", "live", "--from-cluster", "--storage-class", "fast-block")
    assert init.exit_code == 0, init.output
    rules = []
    for how in (["--snapshot", str(file)], ["--cluster"]):
        result = run(control_plane, root, "check", "live", *how, "--format", "json")
        rows = json.loads(result.stdout)
        rules.append(
            [row for row in rows if row["rule"].startswith("live-") and row["rule"] != "live-secrets"]
        )
        assert "live-taints" in {row["rule"] for row in rows}
    assert [row for row in rules[0] if row["rule"] != "live-argocd"] == [
        row for row in rules[1] if row["rule"] != "live-argocd"
    ]


def test_a_server_that_does_not_answer_is_said_in_one_line(tmp_path: Path, root: Path) -> None:
    dead = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "c", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }  # fmt: skip
    file = tmp_path / "dead.kubeconfig"
    file.write_text(json.dumps(dead))
    result = CliRunner().invoke(cli, ["status", "open", "--root", str(root), "--kubeconfig", str(file)])
    assert (result.exit_code, "does not answer" in result.stderr) == (1, True)
    result = CliRunner().invoke(
        cli, ["status", "open", "--root", str(root), "--kubeconfig", str(file), "--context", "x"]
    )
    assert (result.exit_code, "no cluster is configured" in result.stderr) == (1, True)
