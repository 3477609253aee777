# SPDX-License-Identifier: Apache-2.0
"""More of a live cluster than `gather` reads: nodes one by one, versions of CRDs, quotas, room for volumes.

A survey can be kept in a file, for whoever writes the environment and can't reach the cluster. It reads no Secret, no
ConfigMap and no annotation, and what this user has no right to read is listed instead of ending it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError
from tuneyard_api.problems import InputRefused
from tuneyard_api.quantities import quantity_value
from tuneyard_api.yaml_io import dump, load

from tuneyard.cluster.facts import GPU, ClusterFacts, Reader, bare_product, gather, tracker
from tuneyard.findings import Finding, InputError

FORMAT = 1
_GIB = 1 << 30


@dataclass(frozen=True)
class NodeFound:
    """One node."""

    name: str
    product: str = ""
    """The label `nvidia.com/gpu.product` without what sharing adds; empty: no GPU, or no label yet."""
    gpus: int = 0
    """GPUs that pods can have (`status.allocatable`)."""
    disk_gib: int = 0
    """Disk for images, logs and scratch that pods can have, in GiB; 0: not said."""
    taints: tuple[str, ...] = ()
    """Each in the form `key=value:Effect`, or `key:Effect`."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CrdFound:
    """One kind of custom objects."""

    name: str
    group: str
    kind: str
    served: tuple[str, ...]
    """Versions that the API server answers to."""
    stored: str = ""
    """Version in which objects are stored."""
    application: str = ""
    """The Argo CD Application that tracks it."""


@dataclass(frozen=True)
class QuotaFound:
    """One ResourceQuota."""

    namespace: str
    name: str
    hard: Mapping[str, str]


@dataclass(frozen=True)
class Survey:
    """All that is known of a cluster at one time."""

    facts: ClusterFacts
    nodes: tuple[NodeFound, ...] = ()
    crds: tuple[CrdFound, ...] = ()
    quotas: tuple[QuotaFound, ...] = ()
    room_gib: Mapping[str, int] = field(default_factory=dict)
    """Storage class -> GiB left, where its driver says so (CSIStorageCapacity)."""
    unread: tuple[str, ...] = ()
    """What this user may not read."""
    taken: str = ""
    """Time in UTC, ISO 8601."""
    format: int = FORMAT


def survey(reader: Reader, argocd_namespace: str = "argocd", taken: str = "") -> Survey:
    """Read a cluster.

    Raises:
        InputError: it can't be reached, or what every check needs can't be read.
    """
    facts = gather(reader, argocd_namespace)
    unread: list[str] = []

    def optional(path: str) -> list[dict[str, Any]]:
        try:
            return reader.items(path)
        except InputError:
            unread.append(path)
            return []

    return Survey(
        facts,
        tuple(_node(node) for node in reader.items("/api/v1/nodes")),
        tuple(_crd(crd) for crd in reader.items("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")),
        tuple(_quota(quota) for quota in optional("/api/v1/resourcequotas")),
        _room(optional("/apis/storage.k8s.io/v1/csistoragecapacities")),
        tuple(unread),
        taken,
    )


def _node(node: Mapping[str, Any]) -> NodeFound:
    labels = node["metadata"].get("labels", {})
    there = node.get("status", {}).get("allocatable", {})
    return NodeFound(
        node["metadata"]["name"],
        bare_product(labels.get(f"{GPU}.product", "")),
        int(there.get(GPU) or 0),
        int(quantity_value(there.get("ephemeral-storage", "0")) / _GIB),
        tuple(_taint(taint) for taint in node.get("spec", {}).get("taints", ())),
        dict(sorted(labels.items())),
    )


def _taint(taint: Mapping[str, str]) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint['effect']}"


def _crd(crd: Mapping[str, Any]) -> CrdFound:
    spec = crd["spec"]
    served = tuple(sorted(version["name"] for version in spec["versions"] if version["served"]))
    stored = next(version["name"] for version in spec["versions"] if version["storage"])
    name = crd["metadata"]["name"]
    return CrdFound(name, spec["group"], spec["names"]["kind"], served, stored, tracker(crd["metadata"]))


def _quota(quota: Mapping[str, Any]) -> QuotaFound:
    hard = dict(sorted(quota.get("spec", {}).get("hard", {}).items()))
    return QuotaFound(quota["metadata"]["namespace"], quota["metadata"]["name"], hard)


def _room(capacities: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    room: dict[str, int] = {}
    for each in capacities:
        if "capacity" in each:  # absent: the driver does not know
            name = each["storageClassName"]
            room[name] = room.get(name, 0) + int(quantity_value(each["capacity"]) / _GIB)
    return dict(sorted(room.items()))


def as_yaml(found: Survey) -> str:
    """The survey as a file; lists are sorted, so that two of them can be compared."""
    document = TypeAdapter(Survey).dump_python(found, mode="json")
    document["facts"]["crds"] = sorted(document["facts"]["crds"])
    head = {"format": document.pop("format"), "taken": document.pop("taken")}
    return dump({**head, **document})


def read_yaml(text: str, file: str) -> Survey:
    """The survey in a file.

    Raises:
        InputError: the file is none that `tuneyard snapshot` wrote.
    """

    def refused(problem: str) -> InputError:
        hint = "a file that `tuneyard snapshot` of this version wrote"
        return InputError([Finding("snapshot", problem, file=file, hint=hint)])

    try:
        value = load(text).value
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise refused(f"is no snapshot of format {FORMAT}")
        return TypeAdapter(Survey).validate_python(value)
    except InputRefused as error:
        raise refused(f"is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise refused(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
