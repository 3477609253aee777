# SPDX-License-Identifier: Apache-2.0
"""What `bootstrap` applies to Argo CD before the roots: project, repositories, health checks, settings."""

from typing import Any

from tuneyard_api.names import LABEL_MANAGED_BY

from tuneyard.catalog.foundation import namespaces_of
from tuneyard.catalog.repositories import SECRET_TYPE, chart_repository, repository_secret_name
from tuneyard.health import argocd_entries
from tuneyard.render.applications import project_name
from tuneyard.stack.model import Stack

Json = dict[str, Any]

CLUSTER_KINDS = (
    ("", "Namespace"),
    ("admissionregistration.k8s.io", "*"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("apiregistration.k8s.io", "APIService"),
    ("flowcontrol.apiserver.k8s.io", "*"),
    ("kueue.x-k8s.io", "*"),
    ("nfd.k8s-sigs.io", "*"),
    ("node.k8s.io", "RuntimeClass"),
    ("nvidia.com", "*"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("resource.k8s.io", "DeviceClass"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("scheduling.volcano.sh", "Queue"),
    ("tuneyard.io", "FineTuneRuntime"),
)
"""Cluster-scoped kinds that the components bring; nothing else gets past the AppProject."""


def build_project(stack: Stack) -> Json:
    """The AppProject: exactly these repositories, namespaces and cluster-scoped kinds."""
    environment = stack.environment
    repositories = {environment.argocd.repo_url} | {url for url, _ in chart_repositories(stack)}
    names = {*namespaces_of(stack), "default", "kube-system"}
    destinations = [{"server": environment.cluster.server, "namespace": name} for name in sorted(names)]
    destinations.append(
        {"server": "https://kubernetes.default.svc", "namespace": environment.argocd.namespace}
    )
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AppProject",
        "metadata": {
            "name": project_name(environment),
            "namespace": environment.argocd.namespace,
            "labels": {LABEL_MANAGED_BY: "tuneyard"},
        },
        "spec": {
            "description": f"Everything of the Tuneyard environment {environment.name}",
            "sourceRepos": sorted(repositories),
            "destinations": destinations,
            "clusterResourceWhitelist": [{"group": group, "kind": kind} for group, kind in CLUSTER_KINDS],
        },
    }


def chart_repositories(stack: Stack) -> list[tuple[str, bool]]:
    """Every chart repository of the stack and whether it is private, sorted."""
    found = set()
    for component in stack.components:
        pin = stack.pin(component.name)
        if component.values and pin.chart:
            mirrored = stack.environment.registries.charts is not None
            found.add((chart_repository(stack.environment, pin), pin.private and not mirrored))
    return sorted(found)


def build_repositories(stack: Stack) -> list[Json]:
    """Secrets of the public repositories; those of private ones are in the list of expected secrets."""
    environment = stack.environment
    git = environment.argocd.repo_url
    entries: list[tuple[str, Json]] = [(git, {"type": "git", "url": git})]
    for url, private in chart_repositories(stack):
        data = {"type": "helm", "name": url.split("://")[-1].split("/")[0], "url": url}
        if not private:
            entries.append((url, data if "://" in url else {**data, "enableOCI": "true"}))
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": repository_secret_name(environment, url),
                "namespace": environment.argocd.namespace,
                "labels": {SECRET_TYPE: "repository", LABEL_MANAGED_BY: "tuneyard"},
            },
            "stringData": data,
        }
        for url, data in entries
    ]


def build_settings_patch(stack: Stack) -> Json:
    """The merge patch of argocd-cm: only our keys, so everything else in it stays."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "argocd-cm", "namespace": stack.environment.argocd.namespace},
        "data": argocd_entries(),
    }


def build_parameters_patch(stack: Stack) -> Json:
    """The merge patch of argocd-cmd-params-cm; the application controller reads it when it starts."""
    argocd = stack.environment.argocd
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "argocd-cmd-params-cm", "namespace": argocd.namespace},
        "data": {
            "controller.sync.timeout.seconds": str(argocd.sync_timeout_minutes * 60),
            "controller.sync.wave.delay.seconds": str(argocd.wave_delay_seconds),
        },
    }
