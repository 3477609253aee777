# SPDX-License-Identifier: Apache-2.0
"""Finds what of an environment a surveyed cluster has no room for, or does not let run. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from tuneyard_api.quantities import quantity_value

from tuneyard.checks.versions import needed_kubernetes
from tuneyard.cluster.contradictions import contradictions
from tuneyard.cluster.facts import GPU
from tuneyard.cluster.survey import QuotaFound, Survey
from tuneyard.environment.taints import build_toleration
from tuneyard.findings import Finding, Severity
from tuneyard.render.applications import application_name
from tuneyard.render.files import File
from tuneyard.stack.model import Stack

OF_THE_MOMENT = "node.kubernetes.io/"
"""Taints below this come and go with the state of a node: cordoned, not ready, disk full."""
_GIB = 1 << 30


def judge(stack: Stack, files: Sequence[File], found: Survey) -> list[Finding]:
    """Everything in which environment and cluster differ, and what the cluster has no room for."""
    checks = [finding for check in SURVEY_CHECKS for finding in check(stack, files, found)]
    return [*contradictions(stack, found.facts), *checks]


def kubernetes_is_new_enough(stack: Stack, _: Sequence[File], found: Survey) -> Iterator[Finding]:
    """The cluster's Kubernetes is as new as every component needs, whatever the environment says of it."""
    lowest, name = needed_kubernetes(stack)
    if tuple(map(int, found.facts.kubernetes.split("."))) < lowest:
        wanted = ".".join(map(str, lowest))
        yield Finding(
            "live-kubernetes-is-new-enough", f"{name} needs Kubernetes {wanted}, and the cluster has an older one",
            ("cluster", "kubernetes"), repr(found.facts.kubernetes), f"a cluster of {wanted} or later",
        )  # fmt: skip


def taints_are_tolerated(stack: Stack, _: Sequence[File], found: Survey) -> Iterator[Finding]:
    """Every taint of the nodes with a declared GPU is tolerated; pods never come to the others."""
    gpus = stack.environment.gpus
    first = {entry.product: index for index, entry in reversed(tuple(enumerate(gpus.nodes)))}
    for product, index in first.items():
        tolerations = [build_toleration(taint) for taint in (GPU, *gpus.taints(product))]
        nodes = [node for node in found.nodes if node.product == product]
        counted: Counter[str] = Counter()
        for node in nodes:
            for taint in node.taints:
                kept_away = not taint.endswith(":PreferNoSchedule") and not taint.startswith(OF_THE_MOMENT)
                if kept_away and not any(_tolerates(toleration, taint) for toleration in tolerations):
                    counted[taint] += 1
        for taint, count in sorted(counted.items()):
            yield Finding(
                "live-taints", f"{count} of {len(nodes)} nodes with this GPU have a taint that nothing here tolerates",
                ("gpus", "nodes", index, "tolerations"), repr(taint), f"tolerations: [{taint}]",
            )  # fmt: skip


def _tolerates(toleration: dict[str, str], taint: str) -> bool:
    name, _, effect = taint.rpartition(":")
    key, _, value = name.partition("=")
    same_value = toleration["operator"] == "Exists" or toleration["value"] == value
    return toleration["key"] == key and toleration["effect"] == effect and same_value


def crds_serve_what_is_applied(stack: Stack, files: Sequence[File], found: Survey) -> Iterator[Finding]:
    """CRDs that others installed serve the versions of the objects that are rendered here."""
    own = {application_name(stack.environment, component.name) for component in stack.components}
    there = {(crd.group, crd.kind): crd for crd in found.crds if crd.application not in own}
    for file in files:
        for entry in file.objects:
            group, _, version = entry["apiVersion"].partition("/")
            crd = there.get((group, entry["kind"]))
            if crd and version not in crd.served:
                yield Finding(
                    "live-crds", f"the cluster's CRD {crd.name} serves {', '.join(crd.served) or 'nothing'}",
                    file=file.path, got=repr(entry["apiVersion"]),
                    hint="the release of its operator that has this version",
                )  # fmt: skip


def classes_have_room(stack: Stack, _: Sequence[File], found: Survey) -> Iterator[Finding]:
    """New claims of a class fit what its driver has left; claims that exist already are counted once more."""
    storage = stack.environment.storage
    keys = {storage.read_write_once.class_name: "readWriteOnce"}
    if storage.read_write_many:
        keys.setdefault(storage.read_write_many.class_name, "readWriteMany")
    wanted: Counter[str] = Counter()
    for _name, claim in stack.claims():
        wanted[stack.storage_class(shared=claim.shared)] += claim.gib
    for name, gib in sorted(wanted.items()):
        left = found.room_gib.get(name)
        if left is not None and left < gib:
            yield Finding(
                "live-room", f"the cluster's class {name} has {left} GiB left for claims of {gib} GiB",
                ("storage", keys[name]), None, "more storage, or nothing where the claims are bound already",
                Severity.WARNING,
            )  # fmt: skip


def quotas_hold_components(stack: Stack, _: Sequence[File], found: Survey) -> Iterator[Finding]:
    """Quotas that the cluster has in our namespaces leave room for what stands there all the time."""
    wanted: dict[str, Counter[str]] = defaultdict(Counter)
    for component in stack.components:
        uses = wanted[component.namespace]
        uses[f"requests.{GPU}"] += sum(request.gpus for request in component.gpus(stack))
        uses["requests.storage"] += sum(claim.gib for claim in component.claims(stack)) * _GIB
    for quota in found.quotas:
        for resource, amount in sorted(wanted[quota.namespace].items()):
            yield from _over(quota, resource, amount)


def _over(quota: QuotaFound, resource: str, amount: int) -> Iterator[Finding]:
    if resource not in quota.hard or quantity_value(quota.hard[resource]) >= amount:
        return
    needed = f"{amount // _GIB}Gi" if resource == "requests.storage" else str(amount)
    yield Finding(
        "live-quotas", f"the cluster's quota {quota.name} of the namespace {quota.namespace} allows too little for "
        f"what stands there: {resource} of {needed}", (), quota.hard[resource], "a larger quota",
    )  # fmt: skip


def nothing_was_left_unread(_: Stack, __: Sequence[File], found: Survey) -> Iterator[Finding]:
    """The user who looked could read everything that is judged."""
    for path in found.unread:
        yield Finding(
            "live-unread", "this user may not read it, so it was not judged", (), path,
            "another user, or `kubectl auth can-i`", Severity.WARNING,
        )  # fmt: skip


SURVEY_CHECKS = (
    kubernetes_is_new_enough, taints_are_tolerated, crds_serve_what_is_applied, classes_have_room,
    quotas_hold_components, nothing_was_left_unread,
)  # fmt: skip
