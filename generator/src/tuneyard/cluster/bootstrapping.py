# SPDX-License-Identifier: Apache-2.0
"""Configures Argo CD before the root Applications: it adds our keys to the settings; a second run changes nothing.

Everything is server-side apply under one field manager: of an existing argocd-cm only our keys become ours. A key that
somebody else set to another value is a conflict, which is reported, and overwritten only with `force`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tuneyard.cluster.client import ApplyConflictError
from tuneyard.findings import Finding, InputError

Json = dict[str, Any]
SECRET_TYPE = "argocd.argoproj.io/secret-type"  # noqa: S105  a label
CONTROLLER = "argocd-application-controller"
_PLURALS = {
    "ConfigMap": "api/v1/namespaces/{}/configmaps",
    "Secret": "api/v1/namespaces/{}/secrets",
    "AppProject": "apis/argoproj.io/v1alpha1/namespaces/{}/appprojects",
    "Application": "apis/argoproj.io/v1alpha1/namespaces/{}/applications",
}


class Applier(Protocol):
    """The part of the client that this module uses."""

    def get(self, path: str) -> Any:
        """The object at a path, or None."""

    def items(self, path: str) -> list[Json]:
        """Everything in a list."""

    def apply(self, path: str, entry: Json, *, force: bool = False, dry_run: bool = False) -> Json:
        """Server-side apply."""

    def merge(self, path: str, patch: Json) -> Json:
        """A merge patch."""


@dataclass(frozen=True)
class Step:
    """One object and the outcome: created, changed, unchanged, or the reason why it was left out."""

    what: str
    outcome: str


def path_of(entry: Json) -> str:
    """The URL path of an object in the API."""
    metadata = entry["metadata"]
    return "/" + _PLURALS[entry["kind"]].format(metadata["namespace"]) + "/" + str(metadata["name"])


def bootstrap(
    client: Applier, objects: Sequence[Json], now: str, *, force: bool = False, dry_run: bool = False
) -> Iterator[Step]:
    """Apply the objects in their order; the controller is restarted when its parameters changed.

    Raises:
        InputError: Argo CD is not installed, or keys conflict; nothing has been applied then.
    """
    namespace = objects[0]["metadata"]["namespace"]
    if client.get(f"/api/v1/namespaces/{namespace}/configmaps/argocd-cm") is None:
        problem = f"namespace {namespace} has no argocd-cm: Argo CD is not installed there"
        raise InputError([Finding("bootstrap", problem, hint="installing Argo CD, or argocd.namespace")])
    known = repository_urls(client, namespace)
    chosen = []
    for entry in objects:
        other = known.get(entry.get("stringData", {}).get("url", ""))
        if other and other != entry["metadata"]["name"]:
            yield Step(_name(entry), f"left out, because Secret {other} has this repository already")
        else:
            chosen.append(entry)
    if not force:
        _refuse_conflicts(client, chosen)
    restart = False
    for entry in chosen:
        path = path_of(entry)
        before = client.get(path)
        after = client.apply(path, entry, force=force, dry_run=dry_run)
        outcome = outcome_of(before, after)
        restart = restart or (entry["metadata"]["name"] == "argocd-cmd-params-cm" and outcome != "unchanged")
        yield Step(_name(entry), f"would be {outcome}" if dry_run and outcome != "unchanged" else outcome)
    path = f"/apis/apps/v1/namespaces/{namespace}/statefulsets/{CONTROLLER}"
    if restart and not dry_run and client.get(path) is not None:
        annotations = {"kubectl.kubernetes.io/restartedAt": now}
        client.merge(path, {"spec": {"template": {"metadata": {"annotations": annotations}}}})
        yield Step(f"StatefulSet {CONTROLLER}", "restarted: it reads its parameters when it starts")


def _refuse_conflicts(client: Applier, objects: Sequence[Json]) -> None:
    problems = []
    for entry in objects:
        try:
            client.apply(path_of(entry), entry, dry_run=True)
        except ApplyConflictError as error:
            problems.append(
                Finding("bootstrap", f"{_name(entry)}: {error}", hint="--force, if ours may replace it")
            )
    if problems:
        raise InputError(problems)


def repository_urls(client: Applier, namespace: str) -> dict[str, str]:
    """URL of each repository -> name of its Secret in Argo CD."""
    import base64  # noqa: PLC0415

    query = f"labelSelector={SECRET_TYPE}%3Drepository"
    found = client.items(f"/api/v1/namespaces/{namespace}/secrets?{query}")
    urls = {entry["metadata"]["name"]: entry.get("data", {}).get("url", "") for entry in found}
    return {base64.b64decode(url).decode(): name for name, url in urls.items() if url}


def outcome_of(before: Json | None, after: Json) -> str:
    """The outcome, by comparing content: an apply that changes nothing may still touch managedFields."""
    if before is None:
        return "created"
    return "unchanged" if _content(before) == _content(after) else "changed"


def _content(entry: Json) -> Json:
    kept = {key: value for key, value in entry.items() if key not in ("metadata", "status", "operation")}
    metadata = entry["metadata"]
    return kept | {key: metadata.get(key) for key in ("labels", "annotations", "finalizers")}


def _name(entry: Json) -> str:
    return f"{entry['kind']} {entry['metadata']['name']}"
