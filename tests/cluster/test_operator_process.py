# SPDX-License-Identifier: Apache-2.0
"""The operator's process with its chart's rights on a real API server: the chain, and SIGKILL at each of its steps."""

from collections.abc import Callable
from urllib.error import HTTPError

import pytest
from support.cluster.operator_process import JobOnCluster, OperatorProcess, until
from support.cluster.operator_setup import StandInServer, make_claims, serve_kinds
from support.samples import failure_text, job_spec, runtime_spec
from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.pod_security import CONTAINER_SECURITY, POD_SECURITY
from tuneyard_api.status import State
from tuneyard_local.cluster import Cluster

pytestmark = pytest.mark.cluster
FLAGS = ("--resync-seconds", "5")
STEPS = [
    "Accepted",
    "Planned",
    "DataReady",
    "Scheduled",
    "Trained",
    "Evaluated",
    "Published",
    "Served",
    "Succeeded",
]


def test_a_job_is_carried_to_succeeded(operator: OperatorProcess, job: JobOnCluster, endpoint) -> None:
    endpoint.models = ["base"]
    operator.start(*FLAGS)
    job.apply(job_spec())
    job.wait_for("DataReady", "False", reasons.PREPARING)
    job.succeed(Stage.PREPARE)
    job.wait_for("DataReady", "True")
    pod = job.pod(Stage.TRAIN)
    job.run_pod(pod)
    job.wait_for("Trained", "False", reasons.TRAINING)
    assert job.status.state is State.TRAINING
    job.succeed(Stage.TRAIN)
    job.wait_for("Evaluated", "True")
    job.succeed(Stage.PUBLISH)
    job.wait_for("Served", "False", reasons.WAITING_FOR_ENDPOINT)
    assert job.status.state is State.SERVING
    endpoint.models = ["base", "a"]
    job.wait_for("Succeeded", "True")
    assert [kind for kind, (status, _) in job.conditions().items() if status == "True"] == STEPS
    assert job.jobs() == ["a-prepare-1", "a-publish-1", "a-train-1"]
    assert "tuneyard_jobs" in operator.page("metrics")
    assert "tuneyard_reconcile_errors_total 0.0" in operator.page("metrics")
    assert operator.page("healthz") == "ok\n"
    assert operator.stop() == 0


def finish(stage: Stage) -> Callable[[JobOnCluster], None]:
    return lambda job: job.succeed(stage)


def begun(job: JobOnCluster) -> list[str]:
    """The Jobs of all attempts that status knows."""
    return [attempt.job for attempt in job.status.attempts]


def start_training(job: JobOnCluster) -> None:
    job.run_pod(job.pod(Stage.TRAIN))


def test_killed_at_each_step_it_carries_the_job_on_without_repeating_anything(
    operator: OperatorProcess, job: JobOnCluster, endpoint
) -> None:
    endpoint.models = []
    operator.start(*FLAGS)
    job.apply(job_spec())
    for reached, started, meanwhile in (
        (("DataReady", "False"), "a-prepare-1", finish(Stage.PREPARE)),
        # That it waits to be placed is said for five seconds only; that the attempt has begun stays.
        (None, "a-train-1", start_training),
        (("Trained", "False", reasons.TRAINING), "a-train-1", finish(Stage.TRAIN)),
        (("Published", "False"), "a-publish-1", finish(Stage.PUBLISH)),
        (("Served", "False"), "a-publish-1", lambda _: endpoint.models.append("a")),
    ):
        if reached is not None:
            job.wait_for(*reached)
        # tests/faults kills between the Job and the status.
        until(started, lambda started=started: started in job.jobs() and started in begun(job))
        operator.kill()
        meanwhile(job)
        operator.start(*FLAGS)
    job.wait_for("Succeeded", "True")
    assert job.jobs() == ["a-prepare-1", "a-publish-1", "a-train-1"]
    assert [(attempt.stage, attempt.number, attempt.outcome) for attempt in job.status.attempts] == [
        (stage, 1, "Succeeded") for stage in Stage
    ]


def test_a_deleted_pod_is_an_interruption_and_starts_the_next_attempt(
    operator: OperatorProcess, job: JobOnCluster, served_cluster: Cluster
) -> None:
    operator.start(*FLAGS)
    job.apply(job_spec())
    pod = job.pod(Stage.PREPARE)
    job.run_pod(pod)
    served_cluster.kubectl("delete", "pod", pod, "-n", job.namespace, "--wait=false")
    until("attempt 2", lambda: job.jobs() == ["a-prepare-1", "a-prepare-2"])
    job.succeed(Stage.PREPARE, attempt=2)
    job.wait_for("DataReady", "True")
    first = job.status.attempts[0]
    assert (first.outcome, first.failure_class) == ("Failed", FailureClass.INTERRUPTED)


def test_a_failed_stage_ends_the_job_with_its_sentence(operator: OperatorProcess, job: JobOnCluster) -> None:
    operator.start(*FLAGS)
    job.apply(job_spec())
    pod = job.pod(Stage.PREPARE)
    job.wait_for("DataReady", "False")
    words = "train.jsonl:3:1 completion: missing; try a template"
    digest = job.status.plan.digest
    job.end_pod(
        pod,
        exit_code=10,
        reason="Error",
        message=failure_text(Stage.PREPARE, digest, FailureClass.BAD_INPUT, words),
    )
    job.wait_for("Succeeded", "False", "BadInput")
    assert job.status.message == words
    assert job.told("BadInput")["type"] == "Warning"


def test_more_gpus_than_any_node_has_waits_with_the_scheduler_s_words(
    operator: OperatorProcess, job: JobOnCluster
) -> None:
    operator.start(*FLAGS)
    job.apply(job_spec(parallelism={"gpusPerNode": 8}))
    job.succeed(Stage.PREPARE)
    waiting = job.waits_for(reasons.WAITING_FOR_GPU, "2 Insufficient nvidia.com/gpu")
    assert waiting.message.startswith("0/2 nodes are available")
    assert job.conditions()["Scheduled"] == ("False", reasons.WAITING_FOR_GPU)
    assert job.status.state is State.WAITING


def test_an_image_that_cannot_be_pulled_is_named(operator: OperatorProcess, job: JobOnCluster) -> None:
    operator.start(*FLAGS)
    job.apply(job_spec())
    pod = job.pod(Stage.PREPARE)
    trouble = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    job.set_pod(
        pod,
        containerStatuses=[
            {
                "name": "trainer",
                "image": "x",
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": trouble,
            }
        ],
    )
    waiting = job.waits_for(reasons.IMAGE_PULL)
    assert waiting.message == "image registry.example/trainer:1 can't be pulled: not found"
    assert job.conditions()["DataReady"] == ("False", reasons.IMAGE_PULL)


def test_a_missing_claim_is_waited_for_by_name(operator: OperatorProcess, job: JobOnCluster) -> None:
    operator.start(*FLAGS)
    spec = job_spec()
    spec["dataset"]["training"]["pvc"]["claimName"] = "nowhere"
    job.apply(spec)
    job.wait_for("Accepted", "False", reasons.CLAIM_MISSING)
    assert job.status.message == f"PersistentVolumeClaim nowhere does not exist in namespace {job.namespace}"
    assert job.jobs() == []


def test_kinds_that_go_and_come_back_are_waited_for_and_a_job_is_then_carried_on(
    operator: OperatorProcess, job: JobOnCluster, served_cluster: Cluster, endpoint: StandInServer
) -> None:
    operator.start(*FLAGS)
    other = OperatorProcess(operator.kubeconfig, operator.log.with_suffix(".other"))
    crds = [f"{plural}.{names.GROUP}" for plural in (names.JOB_PLURAL, names.RUNTIME_PLURAL)]
    assert served_cluster.kubectl("delete", "crd", *crds).returncode == 0
    try:
        until("it waits", lambda: "waits for manifests/crds to be applied" in operator.said())
        with pytest.raises(HTTPError, match="503"):
            operator.page("readyz")
        other.start(wait=False)
        until("another one waits", lambda: "waits for manifests/crds to be applied" in other.said())
        assert other.stop() == 0
    finally:
        other.kill()
        serve_kinds(served_cluster, endpoint.url)
    job.apply(job_spec())
    job.succeed(Stage.PREPARE)
    job.wait_for("DataReady", "True")
    assert "Traceback" not in operator.said()
    assert operator.stop() == 0


def test_in_a_namespace_without_any_claim_the_missing_ones_are_waited_for(
    operator: OperatorProcess, job_without_claims: JobOnCluster, served_cluster: Cluster
) -> None:
    job = job_without_claims
    operator.start(*FLAGS)
    job.apply(job_spec())
    job.wait_for("Accepted", "False", reasons.CLAIM_MISSING)
    assert job.status.message == (
        f"PersistentVolumeClaim adapters, data, models does not exist in namespace {job.namespace}"
    )
    make_claims(served_cluster, job.namespace)
    job.wait_for("DataReady", "False", reasons.PREPARING)


def test_a_quota_is_named_and_waited_out(
    operator: OperatorProcess, job: JobOnCluster, served_cluster: Cluster
) -> None:
    where = {"namespace": job.namespace}
    container = {"name": "a", "image": "example.com/a:1", "securityContext": CONTAINER_SECURITY}
    other = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other", **where}}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", **where}}
    served_cluster.apply({**other, "spec": {"securityContext": POD_SECURITY, "containers": [container]}})
    served_cluster.apply({**quota, "spec": {"hard": {"pods": "1"}}})
    path = f"/api/v1/namespaces/{job.namespace}/resourcequotas/few"
    until("the quota counts", lambda: served_cluster.get(path).get("status", {}).get("used") == {"pods": "1"})
    operator.start(*FLAGS)
    job.apply(job_spec())
    waiting = job.waits_for(reasons.QUOTA_EXCEEDED)
    assert (waiting.kind, waiting.name) == ("ResourceQuota", "few")
    assert job.conditions()["DataReady"] == ("False", reasons.QUOTA_EXCEEDED)
    served_cluster.kubectl("delete", "pod", "other", "-n", job.namespace, "--grace-period=0", "--force")
    job.wait_for("DataReady", "False", reasons.PREPARING)


def test_a_quota_on_cpu_limits_is_named_and_met_by_a_limit_range_or_by_the_runtime_s_field(
    operator: OperatorProcess, job: JobOnCluster, served_cluster: Cluster
) -> None:
    where = {"namespace": job.namespace}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "lim", **where}}
    served_cluster.apply({**quota, "spec": {"hard": {"limits.cpu": "64"}}})
    path = f"/api/v1/namespaces/{job.namespace}/resourcequotas/lim"
    until("the quota counts", lambda: served_cluster.get(path).get("status", {}).get("used"))
    operator.start(*FLAGS)
    job.apply(job_spec())
    words = "failed quota: lim: must specify limits.cpu for: trainer; try a LimitRange"
    waiting = job.waits_for(reasons.PODS_REFUSED, words)
    assert (waiting.kind, waiting.name) == ("ResourceQuota", "lim")
    assert job.conditions()["DataReady"] == ("False", reasons.PODS_REFUSED)
    limits = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "usual", **where}}
    served_cluster.apply({**limits, "spec": {"limits": [{"type": "Container", "default": {"cpu": "2"}}]}})
    job.succeed(Stage.PREPARE)
    job.wait_for("DataReady", "True")
    served_cluster.kubectl("delete", "limitrange", "usual", "-n", job.namespace)
    spec = runtime_spec(prepareResources={"cpu": "1", "cpuLimit": "3"})
    runtime = {"apiVersion": names.API_VERSION, "kind": names.RUNTIME_KIND, "metadata": {"name": "limited"}}
    served_cluster.apply({**runtime, "spec": spec})
    other = JobOnCluster(served_cluster, job.namespace, "b")
    other.apply(job_spec(runtime={"name": "limited"}))
    [pod] = until("its pod", lambda: other.children(f"/api/v1/namespaces/{job.namespace}/pods"))
    assert pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "3"


def test_deleting_the_job_takes_its_children_along(operator: OperatorProcess, job: JobOnCluster) -> None:
    operator.start(*FLAGS)
    job.apply(job_spec())
    job.pod(Stage.PREPARE)
    job.cluster.kubectl("delete", "finetunejob", "a", "-n", job.namespace)
    until(
        "nothing is left",
        lambda: not job.jobs() and not job.children(f"/api/v1/namespaces/{job.namespace}/configmaps"),
    )
    job.apply(job_spec(training={"seed": 7}))
    job.wait_for("DataReady", "False", reasons.PREPARING)


def test_children_are_lifted_by_the_restricted_profile_and_the_strict_api_server(
    operator: OperatorProcess, job: JobOnCluster
) -> None:
    operator.start(*FLAGS)
    job.apply(job_spec())
    pod = job.pod(Stage.PREPARE)
    body = job.cluster.get(f"/api/v1/namespaces/{job.namespace}/pods/{pod}")
    assert body["spec"]["automountServiceAccountToken"] is False
    assert body["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
