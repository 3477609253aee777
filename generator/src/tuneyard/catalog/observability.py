# SPDX-License-Identifier: Apache-2.0
"""Metrics and traces: Prometheus with Grafana or an existing Prometheus, and the OpenTelemetry collector."""

from tuneyard.catalog.objects import merged
from tuneyard.stack.model import Claim, Component, ExpectedSecret, Json, Service, Stack

NAMESPACE = "observability"


def _prometheus(stack: Stack) -> Json:
    """The chart's values.yaml and those of its subcharts grafana, kube-state-metrics and prometheus-node-exporter."""
    volume = {
        "volumeClaimTemplate": {
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": stack.storage_class(),
                "resources": {"requests": {"storage": f"{stack.volume_gib('kube-prometheus-stack', 20)}Gi"}},
            }
        }
    }
    values: Json = {
        "fullnameOverride": "prometheus",
        "prometheus": {
            "prometheusSpec": {
                # Read every monitor and rule of the cluster, not only those of this release.
                "serviceMonitorSelectorNilUsesHelmValues": False,
                "ruleSelectorNilUsesHelmValues": False,
                "podMonitorSelectorNilUsesHelmValues": False,
                "storageSpec": volume,
            }
        },
        "grafana": {
            "admin": {"existingSecret": "grafana-admin", "userKey": "username", "passwordKey": "password"},
            # Its pod is a Helm test, and nothing else needs its image.
            "testFramework": {"enabled": False},
            "sidecar": {"dashboards": {"enabled": True, "searchNamespace": "ALL"}},
        },
    }
    if stack.environment.registries.mirror:
        values = merged(values, _mirrored_images(stack))
    return values


def _mirrored_images(stack: Stack) -> Json:
    """One registry for each image: `global.imageRegistry` would drop the part that says where it came from."""
    quay, hub, k8s, github = (
        {"image": {"registry": stack.mirrored(name)}}
        for name in ("quay.io", "docker.io", "registry.k8s.io", "ghcr.io")
    )
    return {
        "alertmanager": {"alertmanagerSpec": quay},
        "prometheus": {"prometheusSpec": quay},
        "prometheusOperator": {
            **quay,
            "prometheusConfigReloader": quay,
            "thanosImage": quay["image"],
            "admissionWebhooks": {"deployment": quay, "patch": github},
        },
        "kube-state-metrics": k8s,
        "prometheus-node-exporter": quay,
        "grafana": {**hub, "sidecar": quay},
    }


def _adapter(stack: Stack) -> Json:
    """The chart's values.yaml at 5.3.0. Autoscaling asks for pods' `num_requests_running`, as NIM and vLLM name it."""
    values: Json = {
        "rules": {
            "default": False,
            "custom": [
                {
                    "seriesQuery": '{__name__=~"^(vllm:)?num_requests_running$",namespace!="",pod!=""}',
                    "resources": {
                        "overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}
                    },
                    "name": {"matches": "^(?:vllm:)?(num_requests_running)$", "as": "$1"},
                    "metricsQuery": "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)",
                }
            ],
        },
    }
    if stack.component("kube-prometheus-stack"):
        service, _ = stack.service("metrics")
        values["prometheus"] = {"url": f"http://{stack.host('metrics')}", "port": service.port}
    if stack.environment.registries.mirror:
        adapter = "registry.k8s.io/prometheus-adapter/prometheus-adapter"
        values["image"] = {"repository": stack.mirrored(adapter)}
    return values


def _collector(stack: Stack) -> Json:
    """https://github.com/open-telemetry/opentelemetry-helm-charts/blob/main/charts/opentelemetry-collector/values.yaml."""
    return {
        "mode": "deployment",
        "fullnameOverride": "opentelemetry-collector",
        # The chart refuses to render without an image.
        "image": {"repository": stack.mirrored("docker.io/otel/opentelemetry-collector-k8s")},
        "config": {
            "exporters": {"debug": {"verbosity": "basic"}},
            "service": {
                "pipelines": {name: {"exporters": ["debug"]} for name in ("logs", "metrics", "traces")},
            },
        },
    }


COMPONENTS = (
    Component(
        name="kube-prometheus-stack",
        summary="Prometheus, Grafana and their operator",
        namespace=NAMESPACE,
        provides=("metrics",),
        values=_prometheus,
        services=lambda _: {"metrics": Service("prometheus-prometheus", 9090)},
        secrets=lambda _: [
            ExpectedSecret("grafana-admin", NAMESPACE, ("username", "password"), "Grafana's administrator")
        ],
        claims=lambda stack: [Claim(stack.volume_gib("kube-prometheus-stack", 20))],
        keeps_data=True,
        privileged=True,
    ),
    Component(
        name="existing-prometheus",
        summary="The cluster has the Prometheus operator already",
        provides=("metrics",),
    ),
    Component(
        name="prometheus-adapter",
        summary="Serves the running requests of model servers, by which they are scaled",
        namespace=NAMESPACE,
        provides=("pod-metrics",),
        after=("metrics",),
        values=_adapter,
    ),
    Component(
        name="existing-pod-metrics",
        summary="The cluster serves num_requests_running of pods already (custom.metrics.k8s.io)",
        provides=("pod-metrics",),
    ),
    Component(
        name="opentelemetry-collector",
        summary="Collects logs, metrics and traces of the NeMo services",
        namespace=NAMESPACE,
        provides=("otel",),
        values=_collector,
        services=lambda _: {"otel": Service("opentelemetry-collector", 4317)},
    ),
)
