# SPDX-License-Identifier: Apache-2.0
"""The chart with the real helm and the real API server: it renders, refuses typing errors, and what it makes is taken."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from observability.alerts import RUNBOOKS, build_rules
from observability.dashboard import build_dashboard
from support.cluster.operator_process import until
from tuneyard.checks.custom_kinds import add, check
from tuneyard.render.files import File
from tuneyard_api.runtime import FineTuneRuntimeSpec
from tuneyard_local.cluster import Cluster
from tuneyard_local.errors import ClusterError
from tuneyard_local.parts import build_parts, program
from tuneyard_local.progress import Progress

pytestmark = pytest.mark.cluster
CHART = Path(__file__).parents[2] / "charts" / "tuneyard-operator"
PROMETHEUS_CRDS = Path(__file__).parents[1] / "rendering/prometheus-crds.yaml"


@pytest.fixture(scope="session")
def helm() -> Path:
    """The helm binary; a machine that can't build it says so."""
    try:
        build_parts(["helm"], Progress())
        return program("helm")
    except ClusterError as error:
        pytest.skip(f"no helm: {error}")


def run(helm: Path, *args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm, *map(str, args)], capture_output=True, text=True, check=False, timeout=60)


def rendered(helm: Path, folder: Path, values: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(dict(values)))
    answer = run(
        helm, "template", "ty", CHART, "--namespace", "default", "--kube-version", "1.36.3", "-f", path
    )
    assert answer.returncode == 0, answer.stderr
    objects = [body for body in yaml.safe_load_all(answer.stdout) if body]
    return {(body["kind"], body["metadata"]["name"]): body for body in objects}


OWN = {
    "image": "registry.example/own:1",
    "accelerator": "none",
    "acceleratorResource": None,
    "methods": ["lora"],
}


def test_the_chart_has_no_lint(helm: Path) -> None:
    answer = run(helm, "lint", "--strict", CHART)
    assert answer.returncode == 0, answer.stdout


def test_prometheus_finds_the_operator_where_it_has_its_kinds(helm: Path, tmp_path: Path) -> None:
    assert not [name for kind, name in rendered(helm, tmp_path, {}) if kind == "ServiceMonitor"]
    values = {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}
    objects = rendered(helm, tmp_path, values)
    monitor = objects["ServiceMonitor", "ty-tuneyard-operator"]
    service = objects["Service", "ty-tuneyard-operator"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == [
        port["name"] for port in service["spec"]["ports"]
    ]
    add([PROMETHEUS_CRDS], tmp_path)
    assert check([File("chart", "", "tuneyard-operator", (monitor,))], tmp_path) == []


def test_alert_rules_and_the_dashboard_come_with_the_chart(helm: Path, tmp_path: Path) -> None:
    assert not {"PrometheusRule", "ConfigMap"} & {kind for kind, _ in rendered(helm, tmp_path, {})}
    values = {
        "prometheusRule": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "runbooks": "https://docs.example/r",
        },
        "dashboard": {"enabled": True},
    }
    objects = rendered(helm, tmp_path, values)
    rule = objects["PrometheusRule", "ty-tuneyard-operator"]
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    assert rule["spec"] == json.loads(json.dumps(build_rules()).replace(RUNBOOKS, "https://docs.example/r"))
    dashboard = objects["ConfigMap", "ty-tuneyard-operator-dashboard"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    (text,) = dashboard["data"].values()
    assert json.loads(text)["panels"] == build_dashboard()["panels"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("settings.workerss=1", "additional properties 'workerss' not allowed"),
        ("image.digest=sha256:short", "does not match pattern"),
        ("image.tag=latest", "/image/tag"),
        ("runAsUser=0", "minimum"),
        ("runtimes.Bad=1", "runtimes"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(helm: Path, setting: str, words: str) -> None:
    answer = run(helm, "template", "ty", CHART, "--kube-version", "1.36.3", "--set", setting)
    assert answer.returncode != 0
    assert words in answer.stderr


def test_a_digest_wins_over_the_tag(helm: Path, tmp_path: Path) -> None:
    digest = "sha256:" + "a" * 64
    objects = rendered(helm, tmp_path, {"image": {"digest": digest}})
    [container] = objects["Deployment", "ty-tuneyard-operator"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"tuneyard/operator@{digest}"


def test_runtimes_are_what_the_operator_reads(helm: Path, tmp_path: Path) -> None:
    values = {"runtimes": {"own": OWN}, "hf": {"spec": {"methods": ["lora", "sft"]}}}
    objects = rendered(helm, tmp_path, values)
    runtimes = {name: body["spec"] for (kind, name), body in objects.items() if kind == "FineTuneRuntime"}
    assert set(runtimes) == {"hf", "own"}
    for spec in runtimes.values():
        FineTuneRuntimeSpec.model_validate(spec)
    assert runtimes["hf"]["methods"] == ["lora", "sft"]
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    assert runtimes["hf"]["image"] == f"tuneyard/trainer:{version}-cuda"
    without = rendered(helm, tmp_path, {"hf": {"enabled": False}})
    assert not [name for kind, name in without if kind == "FineTuneRuntime"]


def test_the_api_server_takes_it_and_its_pod_is_restricted(
    helm: Path, tmp_path: Path, served_cluster: Cluster
) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    served_cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "chart", "labels": labels}}
    )
    kubeconfig = ("--kubeconfig", served_cluster.kubeconfig, "--namespace", "chart")
    answer = run(helm, "install", "tuneyard-operator", CHART, *kubeconfig, "--set", "hf.enabled=false")
    assert answer.returncode == 0, answer.stderr
    assert "The operator runs as tuneyard-operator in namespace chart." in answer.stdout
    try:
        pods = "/api/v1/namespaces/chart/pods"
        [pod] = until("the pod is let in", lambda: (served_cluster.get(pods) or {}).get("items"))
        assert pod["spec"]["serviceAccountName"] == "tuneyard-operator"
    finally:
        assert run(helm, "uninstall", "tuneyard-operator", *kubeconfig).returncode == 0
        served_cluster.kubectl("delete", "namespace", "chart", "--wait=false")
