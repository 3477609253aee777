# SPDX-License-Identifier: Apache-2.0
"""Each committed environment can hold a job: its quotas on a real API server take claims, workspace and pods."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster.operator_process import JobOnCluster, OperatorProcess, until
from support.cluster.operator_setup import make_namespace
from tuneyard_api import reasons
from tuneyard_api.job import FineTuneJob
from tuneyard_api.planner import make_plan
from tuneyard_api.pod_contract import Stage
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_local.cluster import Cluster
from tuneyard_local.errors import ClusterError
from tuneyard_operator.domain.frozen import Frozen
from tuneyard_operator.domain.objects.metadata import Owner
from tuneyard_operator.domain.objects.pod import build_pod_spec

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
EXAMPLE = yaml.safe_load((ROOT / "examples/docstrings-lora.yaml").read_text())["spec"]
KINDS = {"ResourceQuota", "PersistentVolumeClaim", "NetworkPolicy"}
"""Kinds of a tree that every API server knows, and that a namespace of jobs is made of."""


def tree(environment: str) -> list[dict[str, Any]]:
    """Every rendered object of an environment."""
    files = sorted((ROOT / "manifests" / environment).glob("*/*.yaml"))
    bodies = [yaml.safe_load(path.read_text()) for path in files]
    return [body for body in bodies if isinstance(body, dict) and "kind" in body]


CASES = sorted(
    (environment.name, body["metadata"]["name"], quota["metadata"]["namespace"])
    for environment in (ROOT / "manifests").iterdir()
    if (environment / "fine-tuning").is_dir()
    for body in tree(environment.name)
    if body["kind"] == "FineTuneRuntime"
    for quota in tree(environment.name)
    if quota["kind"] == "ResourceQuota"
)


def spec_for(runtime: dict[str, Any], name: str) -> dict[str, Any]:
    """The README's job on a runtime: of a base model that the runtime serves or its service trains, where it names some."""
    of_service = (runtime["spec"].get("customizer") or {}).get("models")
    named = runtime["spec"].get("servedModels") or of_service or []
    repository = named[0]["base"].get("huggingFace") if named else None
    model = {"huggingFace": repository} if repository else EXAMPLE["model"]
    # A service compares no models, and refuses the records for that.
    dataset = {"training": EXAMPLE["dataset"]["training"]} if of_service else EXAMPLE["dataset"]
    return {**EXAMPLE, "model": model, "dataset": dataset, "runtime": {"name": name}}


@pytest.fixture
def job(
    served_cluster: Cluster, environment: str, runtime: str, namespace: str
) -> Iterator[tuple[JobOnCluster, dict[str, Any], list[dict[str, Any]]]]:
    """The README's job in a namespace as the tree makes it, and the tree's runtime under a name of its own."""
    there = f"{environment}-{namespace}-{runtime}"
    make_namespace(served_cluster, there)
    (found,) = [
        body
        for body in tree(environment)
        if (body["kind"], body["metadata"]["name"]) == ("FineTuneRuntime", runtime)
    ]
    own = {**found, "metadata": {"name": there}}
    for each in own["spec"].get("servedModels") or []:
        each.pop("namespaces", None)  # the namespace has another name here
    rendered = [
        {**body, "metadata": {**body["metadata"], "namespace": there}}
        for body in tree(environment)
        if body["kind"] in KINDS and body["metadata"]["namespace"] == namespace
    ]
    brought = [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": there},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }
        for name in ("models", "datasets", *(m["claimName"] for m in own["spec"].get("mounts") or []))
    ]
    rendered.sort(key=lambda body: body["kind"] != "ResourceQuota")
    served_cluster.apply(*rendered, own, *brought)
    quotas = [body for body in rendered if body["kind"] == "ResourceQuota"]
    yield JobOnCluster(served_cluster, there), own, quotas
    served_cluster.kubectl("delete", "namespace", there, "--wait=false")
    served_cluster.kubectl("delete", "finetuneruntime", there)


def is_admitted(job: JobOnCluster, spec: dict[str, Any], quotas: list[dict[str, Any]]) -> bool:
    """Whether the API server takes the job.

    It refuses every job while its quota is not counted. The controller looks for kinds of CRDs every 30 s, and it looks
    again at a quota that is older than the kind only after minutes: so the quota is made anew.
    """
    try:
        job.apply(spec)
    except ClusterError as error:
        if "status unknown for quota" not in str(error):
            raise
        time.sleep(5)
        for quota in quotas:
            job.cluster.kubectl("-n", job.namespace, "delete", "resourcequota", quota["metadata"]["name"])
        job.cluster.apply(*quotas)
        return False
    return True


@pytest.mark.parametrize(("environment", "runtime", "namespace"), CASES)
def test_a_committed_environment_takes_the_readme_s_job(
    operator: OperatorProcess, job: tuple[JobOnCluster, dict[str, Any], list[dict[str, Any]]]
) -> None:
    on_cluster, runtime, quotas = job
    operator.start("--resync-seconds", "5")
    spec = spec_for(runtime, runtime["metadata"]["name"])
    until("the quota to be counted", lambda: is_admitted(on_cluster, spec, quotas), 240)
    space = on_cluster.namespace
    # For two seconds it says that it prepares; then it waits for volumes that nobody provides here.
    until("its pod to be let in", lambda: on_cluster.children(f"/api/v1/namespaces/{space}/pods"))
    on_cluster.wait_for("DataReady", "False")
    waiting = on_cluster.status.waiting_for
    assert waiting is None or waiting.reason in {reasons.VOLUME_TROUBLE, reasons.UNSCHEDULABLE}, waiting
    assert on_cluster.children(f"/api/v1/namespaces/{space}/persistentvolumeclaims"), (
        "the workspace was admitted"
    )
    # What quotas and policies say is said at creation.
    wanted = FineTuneJob.model_validate({"metadata": {"name": "a", "namespace": space}, "spec": spec})
    offered = FineTuneRuntime.model_validate(runtime)
    frozen = Frozen(plan=make_plan(wanted, offered), runtime=offered.spec, spec=wanted.spec)
    for stage in Stage:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"try-{stage}", "namespace": space},
            "spec": build_pod_spec(Owner(space, "a", "uid"), frozen, stage, 1),
        }
        answer = on_cluster.cluster.kubectl(
            "create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod)
        )
        assert answer.returncode == 0, answer.stderr
