# SPDX-License-Identifier: Apache-2.0
"""A FineTuneJob that lives in git is trained once: after its TTL Argo CD finds nothing to make again.

Argo CD, the operator and the Job controller are real; the test places the pods and says how they ended.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster.operator_process import JobOnCluster, OperatorProcess
from support.cluster.operator_setup import StandInServer, make_claims, make_namespace, serve_kinds
from support.gitops.stack import NAMESPACE, GitOpsStack, until
from support.samples import job_spec
from tuneyard.render.jobs import DEFAULTS_IN_LISTS
from tuneyard_api import names
from tuneyard_api.pod_contract import Stage

pytestmark = pytest.mark.gitops
SPACE = "jobs-in-git"
APPLICATION = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "Application",
    "metadata": {"name": "jobs", "namespace": NAMESPACE},
    "spec": {
        "project": "jobs",
        "destination": {"server": "https://kubernetes.default.svc", "namespace": SPACE},
        "syncPolicy": {
            "automated": {"prune": True, "selfHeal": True},
            "syncOptions": ["ServerSideApply=true"],
        },
        "ignoreDifferences": [DEFAULTS_IN_LISTS],
    },
}
"""Someone's own, beside the rendered ones, with what these let pass."""


PROJECT = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "AppProject",
    "metadata": {"name": "jobs", "namespace": NAMESPACE},
    "spec": {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": SPACE}]},
}


class JobInGit(JobOnCluster):
    """Its pods are placed by the test: there is no node."""

    def __init__(self, stack: GitOpsStack, name: str = "a") -> None:
        super().__init__(stack.cluster, SPACE, name)
        self._stack = stack

    def pod(self, stage: Stage, attempt: int = 1) -> str:
        selector = (
            f"{names.LABEL_JOB}={self.name},{names.LABEL_STAGE}={stage},{names.LABEL_ATTEMPT}={attempt}"
        )
        pods = f"/api/v1/namespaces/{SPACE}/pods"
        found = until(
            f"a pod of {stage}", lambda: self._stack.api.items(f"{pods}?labelSelector={selector}"), 120
        )
        name = str(found[0]["metadata"]["name"])
        target = {"apiVersion": "v1", "kind": "Node", "name": "played"}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        status, answer = self._stack.api.send("POST", f"{pods}/{name}/binding", binding)
        assert status in (201, 409), answer  # 409: it is placed already
        return name

    @property
    def uid(self) -> str:
        found = self._stack.api.get(self._stack.path(names.JOB_KIND, SPACE, self.name))
        return str(found["metadata"]["uid"]) if found else ""

    def made(self) -> list[str]:
        """Every Job that was ever made for it, gone or not."""
        writes = self._stack.history.changes(0)
        return [
            w.name
            for w in writes
            if w.kind == "Job" and not w.gone and w.name.startswith(f"{SPACE}/{self.name}-")
        ]

    def left(self) -> list[str]:
        """What there is of it but itself."""
        core = f"/api/v1/namespaces/{SPACE}"
        kinds = ("pods", "configmaps", "persistentvolumeclaims")
        children = [child["metadata"]["name"] for kind in kinds for child in self.children(f"{core}/{kind}")]
        return [*self.jobs(), *children]


def manifest(name: str) -> str:
    spec = job_spec(ttl={"afterSuccessSeconds": 1}, scheduling={"tolerations": [{"key": "gpu"}]})
    body = {"apiVersion": names.API_VERSION, "kind": names.JOB_KIND, "metadata": {"name": name}, "spec": spec}
    return yaml.safe_dump(body)


@pytest.fixture
def endpoint() -> Iterator[StandInServer]:
    server = StandInServer()
    server.models = ["base", "a"]
    yield server
    server.close()


@pytest.fixture
def operator(gitops: GitOpsStack, endpoint: StandInServer, tmp_path: Path) -> Iterator[OperatorProcess]:
    serve_kinds(gitops.cluster, endpoint.url)
    make_namespace(gitops.cluster, SPACE)
    make_claims(gitops.cluster, SPACE)
    process = OperatorProcess(gitops.cluster.kubeconfig, tmp_path / "operator.log")
    start(process)
    yield process
    process.kill()
    print(process.log.read_text())
    gitops.wipe()


def start(operator: OperatorProcess) -> None:
    operator.start("--resync-seconds", "5", wait=False)
    until(
        "the operator sees the cluster",
        lambda: "knows the objects of the cluster" in operator.said() or None,
        120,
    )


def follow(stack: GitOpsStack, *jobs: str) -> None:
    """Commit a folder of jobs, and let Argo CD follow it."""
    files = {f"jobs/{name}.yaml": manifest(name) for name in jobs}
    head = stack.repository.commit(files, " and ".join(jobs), seconds=0, branch="jobs")
    source: dict[str, Any] = {"repoURL": stack.git_url, "targetRevision": "jobs", "path": "jobs"}
    stack.cluster.apply(PROJECT, {**APPLICATION, "spec": {**APPLICATION["spec"], "source": source}})

    def is_synced() -> bool:
        operation = ((stack.application("jobs") or {}).get("status") or {}).get("operationState", {})
        return operation.get("syncResult", {}).get("revision") == head and operation["phase"] == "Succeeded"

    stack.wait("Argo CD has synced the jobs", is_synced, 120)


def test_a_job_in_git_is_trained_once(gitops: GitOpsStack, operator: OperatorProcess) -> None:
    job, states = JobInGit(gitops), gitops.states
    follow(gitops, "a")
    until("Argo CD waits for it", lambda: "/Progressing/" in states()["jobs"], 120)
    for stage in (Stage.PREPARE, Stage.TRAIN, Stage.PUBLISH):
        job.succeed(stage)
    job.wait_for("Succeeded", "True", seconds=120)
    until("its time has passed", lambda: job.status.cleaned is not None, 120)
    until("its children and its workspace are gone", lambda: not job.left(), 120)
    until("Argo CD calls it healthy", lambda: states()["jobs"] == "Synced/Healthy/Succeeded", 120)
    gitops.history.catch_up()
    uid, made = job.uid, job.made()
    assert made == [f"{SPACE}/a-{stage}-1" for stage in ("prepare", "train", "publish")]

    # Another job in the same folder: Argo CD applies both, and an operator without memories sees both.
    operator.kill()
    follow(gitops, "a", "b")
    start(operator)
    JobInGit(gitops, "b").pod(Stage.PREPARE)
    until("the jobs are synced", lambda: states()["jobs"].startswith("Synced/"), 120)
    gitops.history.catch_up()
    assert job.made() == made
    assert job.uid == uid
    assert job.left() == []

    # What the API server fills into a list is a difference where nobody lets it pass.
    spec: dict[str, Any] = {**APPLICATION["spec"], "source": gitops.application("jobs")["spec"]["source"]}
    bare = {key: spec[key] for key in ("project", "source", "destination")}
    gitops.cluster.kubectl("delete", "application", "jobs", "--namespace", NAMESPACE)
    by_hand = {"syncPolicy": {"syncOptions": ["ServerSideApply=true"]}}
    gitops.cluster.apply({**APPLICATION, "spec": {**bare, **by_hand}})
    until("Argo CD calls it a difference", lambda: states().get("jobs", "").startswith("OutOfSync/"), 120)
    gitops.cluster.apply({**APPLICATION, "spec": spec})
    until("Argo CD lets it pass", lambda: states()["jobs"].startswith("Synced/"), 120)

    # That it can fail: what goes with its TTL is made again by Argo CD, and then it does train again.
    gitops.api.send("DELETE", gitops.path(names.JOB_KIND, SPACE, "a"))
    until("Argo CD makes it again", lambda: job.uid not in ("", uid), 120)
    JobInGit(gitops).pod(Stage.PREPARE)
    gitops.history.catch_up()
    assert len(job.made()) == len(made) + 1
