# SPDX-License-Identifier: Apache-2.0
"""Where an environment has Prometheus, it reads operator and jobs: rendered, let through, and as Prometheus' CRDs say."""

from pathlib import Path
from typing import Any

import pytest
from tuneyard.catalog import catalog, pins
from tuneyard.checks.custom_kinds import add, check, known
from tuneyard.environment.model import Environment
from tuneyard.render.files import File
from tuneyard.stack.model import Stack
from tuneyard.stack.order import waves
from tuneyard.stack.resolve import resolve
from tuneyard_api.pod_contract import PROGRESS_PORT, Stage
from tuneyard_operator.domain.objects.metadata import Owner, stage_labels

CRDS = Path(__file__).with_name("prometheus-crds.yaml")


def stack_of(metrics: str | None) -> Stack:
    environment = Environment.model_validate(
        {
            "name": "test",
            "preset": "open",
            "argocd": {"repoUrl": "https://git.example.com/gitops.git"},
            "cluster": {"kubernetes": "1.36"},
            "storage": {"readWriteOnce": {"className": "local-path"}},
            "gpus": {"nodes": [{"product": "NVIDIA-A100-SXM4-80GB", "gpusPerNode": 8, "memoryGiB": 80}]},
            "fineTuning": {
                "runtimes": [{"name": "hf"}],
                "namespaces": [
                    {"name": "team", "gpus": 4, "storageGiB": 500},
                    {"name": "lab", "gpus": 2, "storageGiB": 500},
                ],
            },
            **({"use": {"metrics": metrics}, "components": {metrics: {"enabled": True}}} if metrics else {}),
        }
    )
    return resolve(environment, catalog(environment), pins())


def objects_of(stack: Stack, kind: str) -> list[dict[str, Any]]:
    (tuning,) = [component for component in stack.components if component.name == "fine-tuning"]
    assert tuning.objects is not None
    return [body for body in tuning.objects(stack) if body["kind"] == kind]


def operator_values(stack: Stack) -> dict[str, Any]:
    (operator,) = [component for component in stack.components if component.name == "tuneyard-operator"]
    assert operator.values is not None
    return dict(operator.values(stack))


@pytest.mark.parametrize("metrics", ["kube-prometheus-stack", "existing-prometheus"])
def test_every_namespace_of_jobs_has_a_pod_monitor_and_the_operator_a_service_monitor(metrics: str) -> None:
    stack = stack_of(metrics)
    monitors = objects_of(stack, "PodMonitor")
    assert [body["metadata"]["namespace"] for body in monitors] == ["team", "lab"]
    values = operator_values(stack)
    for part in ("serviceMonitor", "prometheusRule", "dashboard"):
        assert values[part] == {"enabled": True}, part
    order = waves(stack)
    if metrics in order:
        assert order["fine-tuning"] > order[metrics], "the kinds are there before their objects"


def test_without_prometheus_nothing_of_its_kinds_is_rendered() -> None:
    stack = stack_of(None)
    assert objects_of(stack, "PodMonitor") == []
    assert not {"serviceMonitor", "prometheusRule", "dashboard"} & operator_values(stack).keys()


def test_the_prometheus_of_the_catalog_reads_rules_and_grafana_dashboards_of_every_release() -> None:
    stack = stack_of("kube-prometheus-stack")
    (prometheus,) = [each for each in stack.components if each.name == "kube-prometheus-stack"]
    assert prometheus.values is not None
    values = dict(prometheus.values(stack))
    spec = values["prometheus"]["prometheusSpec"]
    assert [
        spec[f"{what}SelectorNilUsesHelmValues"] for what in ("serviceMonitor", "podMonitor", "rule")
    ] == [False] * 3
    assert values["grafana"]["sidecar"]["dashboards"] == {"enabled": True, "searchNamespace": "ALL"}


def test_the_monitor_finds_the_pods_of_a_job_by_their_labels_and_port() -> None:
    spec = objects_of(stack_of("kube-prometheus-stack"), "PodMonitor")[0]["spec"]
    labels = stage_labels(Owner("team", "my-job", "uid"), Stage.TRAIN, 1)
    (wanted,) = spec["selector"]["matchExpressions"]
    assert (wanted["operator"], wanted["key"] in labels) == ("Exists", True)
    (endpoint,) = spec["podMetricsEndpoints"]
    # Prometheus' name of a label: every character that is no letter, digit or underscore becomes an underscore.
    meta = {
        f"__meta_kubernetes_pod_label_{key.replace('.', '_').replace('/', '_').replace('-', '_')}"
        for key in labels
    }
    (named,) = [rule for rule in endpoint["relabelings"] if rule.get("targetLabel") == "finetunejob"]
    assert set(named["sourceLabels"]) <= meta


@pytest.mark.parametrize(
    ("metrics", "reader"),
    [
        ("kube-prometheus-stack", {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}),
        ("existing-prometheus", {}),
    ],
)
def test_the_network_lets_prometheus_read_from_where_it_is(metrics: str, reader: dict[str, Any]) -> None:
    """The namespace of an existing Prometheus is not known, so progress may be read from all of them."""
    stack = stack_of(metrics)
    (rule,) = [
        rule
        for rule in objects_of(stack, "NetworkPolicy")[0]["spec"]["ingress"]
        if rule.get("ports") == [{"port": PROGRESS_PORT, "protocol": "TCP"}]
    ]
    assert {"namespaceSelector": reader} in rule["from"]


def test_what_is_rendered_fits_the_crd_of_prometheus(tmp_path: Path) -> None:
    add([CRDS], tmp_path)
    assert ("monitoring.coreos.com/v1", "PodMonitor") in set(known(tmp_path))
    monitors = objects_of(stack_of("kube-prometheus-stack"), "PodMonitor")
    assert [str(found) for found in check([File("a", "", "fine-tuning", tuple(monitors))], tmp_path)] == []
    monitors[0]["spec"]["podMetricsEndpoints"][0]["prot"] = "progress"
    assert [found.rule for found in check([File("a", "", "fine-tuning", (monitors[0],))], tmp_path)] == [
        "fits-schema"
    ]
