# SPDX-License-Identifier: Apache-2.0
"""A control plane, Argo CD, a git repository, stand-in charts, absent operators and a history of every write."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tuneyard_local.argocd import ArgoCd, ArgoCdOptions
from tuneyard_local.controlplane import ControlPlane, ControlPlaneOptions
from tuneyard_local.parts import program

from support.gitops.absent_operators import AbsentOperators
from support.gitops.api_watch import MERGE, ApiWatch
from support.gitops.kinds import APPLICATION, EXISTING_GROUPS, KINDS, PROBE, PROBE_HEALTH
from support.gitops.rendered_trees import Change, Tree, render_tree
from support.gitops.stand_in_charts import write_charts
from support.gitops.write_history import History, breaches

Json = dict[str, Any]
Found = TypeVar("Found")
CONTROLLERS = (
    "serviceaccount-controller",
    "namespace-controller",
    "garbage-collector-controller",
    "resourcequota-controller",
    "persistentvolumeclaim-protection-controller",
    "job-controller",
)
"""None that writes the status of a rendered workload: that is the test's. Jobs are the operator's, where it runs."""
READY_SECONDS = 1.5
"""Seconds until an object becomes ready."""
NAMESPACE = "argocd"
GATE = "resource.customizations.health.argoproj.io_Application"
"""The key of argocd-cm that holds our health check of Applications."""
SLOW_HELM = """#!/bin/sh
case "$1" in template) sleep "$(cat '{delay}')" ;; esac
exec '{helm}' "$@"
"""


WELL = "Synced/Healthy/Succeeded"


def state(application: Json) -> str:
    """Sync status, health and the last operation's phase."""
    status = application.get("status") or {}
    found = (status.get("sync", {}).get("status"), status.get("health", {}).get("status"))
    return "/".join(str(word) for word in (*found, status.get("operationState", {}).get("phase")))


def revision(application: Json) -> str:
    """The commit that Argo CD has compared an Application with."""
    return str((application.get("status") or {}).get("sync", {}).get("revision", ""))


def until(what: str, look: Callable[[], Found | None], seconds: float) -> Found:
    """The result of `look`, as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


def is_within(said: Any, live: Any) -> bool:
    """Whether an object still says what was rendered; Argo CD adds empty fields (`directory.jsonnet: {}`)."""
    if isinstance(said, dict) and isinstance(live, dict):
        return all(key in live and is_within(value, live[key]) for key, value in said.items())
    return bool(said == live)


class GitOpsStack:
    """Everything, for one test session."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self.folder = name, folder
        self._stack = ExitStack()
        self._delay = folder / "render-seconds"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            plane = ControlPlaneOptions(kcm_args=(f"--controllers={','.join(CONTROLLERS)}",))
            self.cluster = stack.enter_context(ControlPlane(self._name, plane))
            self.argocd = ArgoCd(self.cluster, ArgoCdOptions(helm=self._slow_helm()))
            self.repository = self.argocd.repository("gitops")
            self.git_url = self.argocd.repository_url("gitops")
            self.argocd.install()
            self.api = ApiWatch(self.cluster)
            first = self.tree("open")
            self._prepare(first)
            self.argocd.start()
            self.history = stack.enter_context(History(self.api))
            self.operators = stack.enter_context(AbsentOperators(self.history, READY_SECONDS))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self.history.join()
        self.api.close()

    def _slow_helm(self) -> Path:
        self._delay.write_text("0")
        path = self.folder / "helm"
        path.write_text(SLOW_HELM.format(delay=self._delay, helm=program("helm")))
        path.chmod(0o755)
        return path

    def render_takes(self, seconds: float) -> None:
        """Sets how long the rendering of each chart takes from now on."""
        self._delay.write_text(str(seconds))

    def _prepare(self, tree: Tree) -> None:
        """Prepares what every environment needs and none renders: the tests' own kinds and health checks."""
        definitions = [k.definition() for k in KINDS if k is PROBE or k.group in EXISTING_GROUPS]
        health = {f"resource.customizations.health.{PROBE.group}_Probe": PROBE_HEALTH}
        self.cluster.apply(*definitions)
        self.add_settings("argocd-cm", health)
        self.bootstrap(tree)

    def tree(self, name: str, change: Change | None = None) -> Tree:
        return render_tree(name, self.folder, self.git_url, self.argocd.charts_url, change)

    def add_settings(self, name: str, data: Mapping[str, str | None]) -> None:
        """Lay data over a ConfigMap of Argo CD."""
        path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{name}"
        status, answer = self.api.send("PATCH", path, {"data": data}, MERGE)
        assert status == 200, answer

    def bootstrap(self, tree: Tree) -> None:
        """What `bootstrap` of an environment brings: project, repositories, health checks, settings."""
        documents = tree.documents("bootstrap/")
        self.cluster.apply(*(entry for entry in documents if entry["kind"] != "ConfigMap"))
        for entry in documents:
            if entry["kind"] == "ConfigMap":
                self.add_settings(entry["metadata"]["name"], entry["data"])

    def commit(self, tree: Tree, message: str) -> int:
        """Commit a tree; returns the newest resource version of before."""
        write_charts(self.argocd.charts, tree.charts())
        version = self.history.now()
        self.repository.commit(tree.files, message, seconds=int(time.time()), branch=tree.branch)
        return version

    def install(self, tree: Tree, settings: dict[str, str | None] | None = None) -> int:
        """Commit, bootstrap and apply the root, as a person does once; `settings` go over those of argocd-cm."""
        version = self.commit(tree, f"{tree.name} as it was rendered")
        self.bootstrap(tree)
        self.add_settings("argocd-cm", settings or {})
        (root,) = tree.documents("platform.yaml")
        self.cluster.apply(root)
        return version

    def application(self, name: str) -> Json | None:
        found: Json | None = self.api.get(f"{APPLICATION.root}/namespaces/{NAMESPACE}/applications/{name}")
        return found

    def applications(self) -> dict[str, Json]:
        return {entry["metadata"]["name"]: entry for entry in self.api.items(APPLICATION.everywhere)}

    def states(self) -> dict[str, str]:
        """Application -> `Synced/Healthy/Succeeded`."""
        return {name: state(entry) for name, entry in self.applications().items()}

    def wait_until_settled(self, tree: Tree, seconds: float) -> float:
        """Wait until every Application of a tree is up to date and healthy, and the history knows it; returns the seconds."""
        start = time.monotonic()
        sources = {entry["metadata"]["name"]: entry["spec"]["source"] for entry in tree.applications()}
        head = self.repository.head(tree.branch)

        def is_settled() -> bool:
            live = self.applications()
            roots = [live.get(f"{tree.name}-{root}", {}) for root in ("platform", "models")]
            # Status describes the spec that was compared last, which may be an earlier one.
            compared = {name: entry.get("status", {}).get("sync", {}) for name, entry in live.items()}
            return (
                all(
                    is_within(source, live.get(name, {}).get("spec", {}).get("source"))
                    and is_within(source, compared[name].get("comparedTo", {}).get("source"))
                    for name, source in sources.items()
                )
                and all(revision(root) == head for root in roots)
                and all(state(live[name]) == WELL for name in (*sources, f"{tree.name}-platform"))
            )

        self.wait(f"{tree.name} is settled", is_settled, seconds)
        took = time.monotonic() - start
        self.history.catch_up()
        return took

    def wait(self, what: str, look: Callable[[], Found | None], seconds: float) -> Found:
        """Like `until`, but a failure includes the messages of Argo CD."""
        try:
            return until(what, look, seconds)
        except AssertionError as error:
            words = "\n".join(f"  {name}: {state}" for name, state in sorted(self.states().items()))
            raise AssertionError(f"{error}\n{words}\n{self.messages()}") from None

    def messages(self) -> str:
        """The messages of Argo CD about each Application that is not healthy."""
        lines = []
        for name, entry in sorted(self.applications().items()):
            status = entry.get("status", {})
            words = [c["message"] for c in status.get("conditions", ())]
            operation = status.get("operationState", {})
            if operation.get("phase") != "Succeeded":
                words.append(operation.get("message", ""))
            if words:
                lines.append(f"  {name}: {'; '.join(words)[:600]}")
        return "\n".join(lines)

    def restart_controller(self) -> None:
        """Restart the application controller, so that it reads argocd-cmd-params-cm again."""
        self.cluster.processes.stop("argocd-application-controller")
        self.argocd.start_controller()

    def path(self, kind: str, namespace: str, name: str) -> str:
        found = next(k for k in KINDS if k.kind == kind)
        return found.path({"namespace": namespace, "name": name})

    def wipe(self) -> None:
        """Remove an environment by force: Applications, then namespaces and CRDs with everything in them."""
        inside = f"{APPLICATION.root}/namespaces/{NAMESPACE}"
        for plural in ("applications", "appprojects"):
            names = [entry["metadata"]["name"] for entry in self.api.items(f"{inside}/{plural}")]
            # Roots first: they would make again what goes before them.
            for name in sorted(names, key=lambda n: (not n.endswith("-platform"), not n.endswith("-models"))):
                if name != "default":
                    path = f"{inside}/{plural}/{name}"
                    self.api.send("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)
                    self.api.send("DELETE", path)
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        spared = {"argoproj.io", PROBE.group, *EXISTING_GROUPS}

        def foreign() -> list[str]:
            return [e["metadata"]["name"] for e in self.api.items(crds) if e["spec"]["group"] not in spared]

        for name in foreign():
            self.api.send("DELETE", f"{crds}/{name}")
        system = ("default", "kube-system", "kube-public", "kube-node-lease", NAMESPACE)
        spaces = "/api/v1/namespaces"

        def left() -> list[str]:
            return [n for e in self.api.items(spaces) if (n := e["metadata"]["name"]) not in system]

        for name in left():
            self.api.send("DELETE", f"{spaces}/{name}")
            # There is no kubelet that would say that its pods have ended.
            for pod in self.api.items(f"{spaces}/{name}/pods"):
                path = f"{spaces}/{name}/pods/{pod['metadata']['name']}"
                self.api.send("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)
                self.api.send(
                    "DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
                )
        until("namespaces and kinds are gone", lambda: not (left() or foreign()) or None, 120)

    def breaches(self, tree: Tree, version: int) -> list[str]:
        """Violations of the order of a tree's needs after a version."""
        return breaches(tree.needs, self.history.started(version), self.history.settled(version))

    def delete_root(self, tree: Tree) -> None:
        self.api.send(
            "DELETE", f"{APPLICATION.root}/namespaces/{NAMESPACE}/applications/{tree.name}-platform"
        )
        until("all Applications are gone", lambda: not self.applications() or None, 240)
        self.history.catch_up()

    def gone_too_early(self, tree: Tree, version: int) -> list[str]:
        """Applications that were deleted after a version, before the ones that need them."""
        gone = self.history.gone(version)
        return [
            f"{provider} went before {application}"
            for application in sorted(gone.keys() & tree.needs.keys())
            for provider in sorted(gone.keys() & tree.needs[application])
            if gone[provider] < gone[application]
        ]
