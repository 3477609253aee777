# SPDX-License-Identifier: Apache-2.0
"""The API resources and verbs that the operator uses. The client uses no others; the chart's role has the same."""

from dataclasses import dataclass

from tuneyard_api import names


@dataclass(frozen=True, slots=True)
class Resource:
    """Where a kind lives in the API."""

    group: str
    version: str
    plural: str
    is_namespaced: bool = True
    subresource: str = ""

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """The URL path of one object, of all objects of a namespace, or of all objects."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if namespace else ""
        end = (f"/{name}" if name else "") + (f"/{self.subresource}" if self.subresource else "")
        return f"{root}{place}/{self.plural}{end}"

    @property
    def right(self) -> tuple[str, str]:
        """API group and resource as a role names them."""
        return self.group, f"{self.plural}/{self.subresource}" if self.subresource else self.plural


RESOURCES = {
    names.JOB_KIND: Resource(names.GROUP, names.VERSION, names.JOB_PLURAL),
    f"{names.JOB_KIND}/status": Resource(names.GROUP, names.VERSION, names.JOB_PLURAL, subresource="status"),
    names.RUNTIME_KIND: Resource(names.GROUP, names.VERSION, names.RUNTIME_PLURAL, is_namespaced=False),
    "Job": Resource("batch", "v1", "jobs"),
    "Pod": Resource("", "v1", "pods"),
    "ConfigMap": Resource("", "v1", "configmaps"),
    "PersistentVolumeClaim": Resource("", "v1", "persistentvolumeclaims"),
    "Service": Resource("", "v1", "services"),
    "ResourceClaimTemplate": Resource("resource.k8s.io", "v1", "resourceclaimtemplates"),
    "EndpointSlice": Resource("discovery.k8s.io", "v1", "endpointslices"),
    "Event": Resource("", "v1", "events"),
    "events.k8s.io/Event": Resource("events.k8s.io", "v1", "events"),
    "Lease": Resource("coordination.k8s.io", "v1", "leases"),
    "Workload": Resource("kueue.x-k8s.io", "v1beta2", "workloads"),
    "LocalQueue": Resource("kueue.x-k8s.io", "v1beta2", "localqueues"),
    "PendingWorkloadsSummary": Resource(
        "visibility.kueue.x-k8s.io", "v1beta2", "localqueues", subresource="pendingworkloads"
    ),
}

CLIENT_VERBS: dict[str, frozenset[str]] = {
    names.JOB_KIND: frozenset({"get", "list", "patch"}),
    f"{names.JOB_KIND}/status": frozenset({"patch"}),
    names.RUNTIME_KIND: frozenset({"list"}),
    "Job": frozenset({"create", "get", "list", "delete"}),
    "Pod": frozenset({"list"}),
    "ConfigMap": frozenset({"create", "get", "delete"}),
    "PersistentVolumeClaim": frozenset({"create", "get", "list", "delete"}),
    "Service": frozenset({"create", "get", "delete"}),
    "ResourceClaimTemplate": frozenset({"create", "get", "delete"}),
    "EndpointSlice": frozenset({"list"}),
    "Event": frozenset({"list"}),
    "events.k8s.io/Event": frozenset({"create"}),
    "Lease": frozenset({"create", "get", "update"}),
    "Workload": frozenset({"list"}),
    "LocalQueue": frozenset({"get"}),
    "PendingWorkloadsSummary": frozenset({"get"}),
}
"""Verbs that the client uses. A call with another verb is refused before it is sent."""

WATCHED_KINDS = (names.JOB_KIND, names.RUNTIME_KIND, "Job", "Pod")
"""Kinds that kopf lists and watches."""

OWNER_VERBS = {f"{names.JOB_KIND}/finalizers": frozenset({"update"})}
"""Verbs that the admission plugin OwnerReferencesPermissionEnforcement requires, because children block their owner's deletion."""
