# SPDX-License-Identifier: Apache-2.0
"""The kinds that appear in rendered trees: where they are, and what their absent operators would write into status."""

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind by the API server's names."""

    group: str
    version: str
    kind: str
    namespaced: bool = True
    chart: str | None = None
    """The chart that brings its CRD; None: it is there already, or comes from this repository."""
    has_status: bool = False

    @property
    def plural(self) -> str:
        lower = self.kind.lower()
        return f"{lower[:-1]}ies" if lower.endswith("y") else f"{lower}s"

    @property
    def root(self) -> str:
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def everywhere(self) -> str:
        return f"{self.root}/{self.plural}"

    def path(self, metadata: Json) -> str:
        inside = f"/namespaces/{metadata['namespace']}" if self.namespaced else ""
        return f"{self.root}{inside}/{self.plural}/{metadata['name']}"

    def definition(self) -> Json:
        """A CRD that takes everything."""
        anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version = {
            "name": self.version,
            "served": True,
            "storage": True,
            "schema": {"openAPIV3Schema": anything},
            "subresources": {"status": {}},
        }
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{self.plural}.{self.group}"},
            "spec": {
                "group": self.group,
                "names": {"kind": self.kind, "plural": self.plural},
                "scope": "Namespaced" if self.namespaced else "Cluster",
                "versions": [version],
            },
        }


NIM = (
    "NIMCache",
    "NIMService",
    "NemoCustomizer",
    "NemoDatastore",
    "NemoEntitystore",
    "NemoEvaluator",
    "NemoGuardrail",
)
APPLICATION = Kind("argoproj.io", "v1alpha1", "Application")
PROBE = Kind("gitops.tuneyard.test", "v1", "Probe", has_status=True)
"""The object of each stand-in chart. It is ready for its generation when the test says so."""
PROBE_HEALTH = """
local hs = {status = "Progressing", message = "not ready for this generation"}
local st = obj.status
if st == nil or st.observedGeneration ~= obj.metadata.generation then return hs end
if st.state == "Ready" then hs.status = "Healthy" end
if st.state == "Failed" then hs.status = "Degraded" end
hs.message = st.state
return hs
"""
JOB = Kind("batch", "v1", "Job", has_status=True)
"""Its status is by Kubernetes' own controller, which counts the pods; a test ends those as a kubelet does."""
EXISTING_GROUPS = frozenset({"external-secrets.io", "monitoring.coreos.com"})
"""Groups of operators that a cluster may have before any tree: an environment names them as existing."""
KINDS = (
    PROBE,
    *(Kind("apps.nvidia.com", "v1alpha1", name, chart="k8s-nim-operator", has_status=True) for name in NIM),
    Kind("nvidia.com", "v1", "ClusterPolicy", namespaced=False, chart="gpu-operator", has_status=True),
    Kind("postgresql.cnpg.io", "v1", "Cluster", chart="cloudnative-pg", has_status=True),
    Kind("postgresql.cnpg.io", "v1", "Database", chart="cloudnative-pg"),
    Kind("kueue.x-k8s.io", "v1beta2", "ClusterQueue", namespaced=False, chart="kueue", has_status=True),
    Kind("kueue.x-k8s.io", "v1beta2", "ResourceFlavor", namespaced=False, chart="kueue"),
    Kind("kueue.x-k8s.io", "v1beta2", "LocalQueue", chart="kueue"),
    Kind("scheduling.volcano.sh", "v1beta1", "Queue", namespaced=False, chart="volcano"),
    Kind("argoproj.io", "v1alpha1", "WorkflowTemplate", chart="argo-workflows"),
    Kind("", "v1", "ServiceAccount"),
    Kind("rbac.authorization.k8s.io", "v1", "Role"),
    Kind("rbac.authorization.k8s.io", "v1", "RoleBinding"),
    Kind("external-secrets.io", "v1", "ExternalSecret", has_status=True),
    Kind("monitoring.coreos.com", "v1", "ServiceMonitor"),
    Kind("monitoring.coreos.com", "v1", "PrometheusRule"),
    Kind("monitoring.coreos.com", "v1", "PodMonitor"),
    Kind("tuneyard.io", "v1alpha1", "FineTuneRuntime", namespaced=False),
    Kind("tuneyard.io", "v1alpha1", "FineTuneJob"),
    JOB,
    Kind("apps", "v1", "Deployment", has_status=True),
    Kind("", "v1", "PersistentVolumeClaim"),
    Kind("", "v1", "ConfigMap"),
    Kind("", "v1", "Namespace", namespaced=False),
    Kind("", "v1", "Service"),
    Kind("", "v1", "ResourceQuota"),
    Kind("networking.k8s.io", "v1", "NetworkPolicy"),
)


def condition(kind: str, *, is_true: bool) -> Json:
    return {
        "type": kind,
        "status": "True" if is_true else "False",
        "reason": "Test",
        "message": "by the test",
    }


def build_status(entry: Json, state: str) -> Json:
    """The status of an object whose operator says `Working`, `Ready` or `Failed`."""
    generation, is_ready = entry["metadata"].get("generation", 1), state == "Ready"
    if entry["kind"] == "Deployment":
        count = entry["spec"].get("replicas", 1)
        done = count if is_ready else None
        counts = dict.fromkeys(("updatedReplicas", "readyReplicas", "availableReplicas"), done)
        conditions = [condition("Available", is_true=is_ready)]
        return {"observedGeneration": generation, "replicas": count, **counts, "conditions": conditions}
    special: dict[str, Json] = {
        "Probe": {"observedGeneration": generation, "state": state},
        "ClusterPolicy": {"state": "ready" if is_ready else "notReady"},
        "Cluster": {
            "phase": "Cluster in healthy state" if is_ready else "Setting up primary",
            "conditions": [],
        },
        "ClusterQueue": {"conditions": [condition("Active", is_true=is_ready)]},
        "ExternalSecret": {"conditions": [condition("Ready", is_true=True)] if is_ready else []},
    }
    return special.get(entry["kind"], {"state": state if state != "Working" else "NotReady"})


def is_ready(entry: Json, has_status: bool) -> bool:
    """Whether the object's own status says that it is ready; objects without one are, once they exist."""
    if not has_status:
        return True
    status = entry.get("status") or {}
    if entry["kind"] == JOB.kind:
        conditions = status.get("conditions", ())
        return any(each["type"] == "Complete" and each["status"] == "True" for each in conditions)
    return status_without_times(status) == status_without_times(build_status(entry, "Ready"))


def status_without_times(status: Json) -> Json:
    conditions = [
        {key: value for key, value in entry.items() if not key.endswith("Time")}
        for entry in status.get("conditions", ())
    ]
    kept = {key: value for key, value in status.items() if value is not None}
    return {**kept, "conditions": conditions}
