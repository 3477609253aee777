# SPDX-License-Identifier: Apache-2.0
"""Argo CD Applications: one for each component, and the two roots.

Every change of a component is a change of its Application's spec, so that the root syncs and its waves hold: charts
have an exact version and inlined values; plain objects are inlined too, as the values of a chart that prints them;
charts and manifests of this repository carry a digest of their content in `source.ref`, which Argo CD does not use
when an Application has a single source.
"""

from collections.abc import Mapping
from typing import Any

from tuneyard_api.names import LABEL_MANAGED_BY

from tuneyard.catalog.foundation import LABEL_ENVIRONMENT
from tuneyard.catalog.repositories import chart_repository
from tuneyard.environment.model import Environment
from tuneyard.stack.model import Component, Stack
from tuneyard.stack.pins import Pin

Json = dict[str, Any]
LABEL_COMPONENT = "tuneyard.io/component"
WAVE = "argocd.argoproj.io/sync-wave"
FINALIZER = "resources-finalizer.argocd.argoproj.io"
ROOTS = ("platform", "models")


def application_name(environment: Environment, component: str) -> str:
    """`<environment>-<component>`: one Argo CD may follow several environments."""
    return f"{environment.name}-{component}"


def project_name(environment: Environment) -> str:
    """The AppProject of an environment."""
    return environment.argocd.project or f"tuneyard-{environment.name}"


def inline_chart_path(environment: str) -> str:
    """The chart that prints the objects in its values."""
    return f"manifests/{environment}/inline"


def build_application(
    stack: Stack,
    component: Component,
    wave: int,
    *,
    values: Json,
    objects: list[Json],
    digests: Mapping[str, str],
) -> Json:
    """The Application of a component."""
    environment, pin = stack.environment, stack.pin(component.name)
    # A destination without namespace is in no AppProject's list.
    destination = {"server": environment.cluster.server, "namespace": component.namespace or "default"}
    spec: Json = {
        "project": project_name(environment),
        "source": _source(stack, component, pin, values=values, objects=objects, digests=digests),
        "destination": destination,
        "syncPolicy": {
            "automated": {"prune": True, "selfHeal": True},
            "retry": _retry(5),
            "syncOptions": ["ServerSideApply=true", "SkipDryRunOnMissingResource=true"],
        },
    }
    if component.ignore_differences:
        spec["ignoreDifferences"] = [dict(entry) for entry in component.ignore_differences]
        spec["syncPolicy"]["syncOptions"].append("RespectIgnoreDifferences=true")
    cascade = environment.argocd.teardown == "cascade" and not component.keeps_data
    return _application(environment, component.name, wave, spec, cascade=cascade)


def _source(
    stack: Stack,
    component: Component,
    pin: Pin,
    *,
    values: Json,
    objects: list[Json],
    digests: Mapping[str, str],
) -> Json:
    environment = stack.environment
    here = {"repoURL": environment.argocd.repo_url, "targetRevision": environment.argocd.revision}
    if pin.chart and component.values:
        helm: Json = {"releaseName": component.name, "valuesObject": values}
        return {
            "repoURL": chart_repository(environment, pin),
            "chart": pin.chart,
            "targetRevision": pin.version,
            "helm": helm,
        }
    if pin.path and component.values:
        helm = {"releaseName": component.name, "valuesObject": values}
        return {**here, "path": pin.path, "ref": f"content-{digests[pin.path][:16]}", "helm": helm}
    if pin.path:
        return {
            **here,
            "path": pin.path,
            "ref": f"content-{digests[pin.path][:16]}",
            "directory": {"recurse": True},
        }
    helm = {"releaseName": component.name, "valuesObject": {"objects": objects}}
    return {**here, "path": inline_chart_path(environment.name), "helm": helm}


def _retry(limit: int) -> Json:
    """`refresh` takes a newer revision at each try (Argo CD 3.2)."""
    return {"limit": limit, "refresh": True, "backoff": {"duration": "10s", "factor": 2, "maxDuration": "3m"}}


def _application(environment: Environment, name: str, wave: int | None, spec: Json, *, cascade: bool) -> Json:
    metadata: Json = {
        "name": application_name(environment, name),
        "namespace": environment.argocd.namespace,
        "labels": {LABEL_MANAGED_BY: "tuneyard", LABEL_COMPONENT: name, LABEL_ENVIRONMENT: environment.name},
    }
    if wave is not None:
        metadata["annotations"] = {WAVE: str(wave)}
    if cascade:
        metadata["finalizers"] = [FINALIZER]
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": metadata, "spec": spec}


def build_root(environment: Environment, root: str, wave: int | None) -> Json:
    """A root; Applications live beside Argo CD, wherever their own objects go."""
    return build_follower(
        environment,
        root,
        wave,
        project=project_name(environment),
        # No `directory`: Argo CD removes an empty one from the object, which would then differ from git for ever.
        source={"path": f"argocd-apps/{environment.name}/{root}"},
        destination={
            "server": "https://kubernetes.default.svc",
            "namespace": environment.argocd.namespace,
        },
        cascade=environment.argocd.teardown == "cascade",
    )


def build_follower(
    environment: Environment,
    name: str,
    wave: int | None,
    *,
    project: str,
    source: Json,
    destination: Json,
    prune: bool = True,
    cascade: bool = False,
) -> Json:
    """An Application that follows a folder. It retries until the sync timeout and takes newer commits, so a fix is picked up unaided."""
    here = {"repoURL": environment.argocd.repo_url, "targetRevision": environment.argocd.revision}
    spec = {
        "project": project,
        "source": {**here, **source},
        "destination": destination,
        "syncPolicy": {
            "automated": {"prune": prune, "selfHeal": True},
            "retry": _retry(-1),
            "syncOptions": ["ServerSideApply=true"],
        },
    }
    return _application(environment, name, wave, spec, cascade=cascade)
