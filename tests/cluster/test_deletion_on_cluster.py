# SPDX-License-Identifier: Apache-2.0
"""deletionPolicy Delete with the chart's rights, a real API server, Job controller, garbage and namespace controllers."""

import json

import pytest
from support.cluster.operator_process import JobOnCluster, OperatorProcess, until
from support.samples import job_spec
from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import Stage

pytestmark = pytest.mark.cluster
FLAGS = ("--resync-seconds", "5")


def body(job: JobOnCluster) -> dict:
    where = f"/apis/{names.API_VERSION}/namespaces/{job.namespace}/{names.JOB_PLURAL}/{job.name}"
    return job.cluster.get(where) or {}


def publish(operator: OperatorProcess, job: JobOnCluster, policy: str) -> None:
    operator.start(*FLAGS)
    job.apply(job_spec(deletionPolicy=policy))
    for stage in Stage:
        job.succeed(stage)
    job.wait_for("Succeeded", "True")


def unpublish_pod(job: JobOnCluster) -> str | None:
    for pod in job.children(f"/api/v1/namespaces/{job.namespace}/pods"):
        if pod["metadata"]["labels"][names.LABEL_COMPONENT] == "unpublish" and pod["spec"].get("nodeName"):
            return str(pod["metadata"]["name"])
    return None


def test_deleted_in_the_foreground_it_unpublishes_what_it_published_and_leaves_nothing(
    operator: OperatorProcess, job: JobOnCluster, endpoint
) -> None:
    endpoint.models = ["base", "a"]
    publish(operator, job, "Retain")
    assert "finalizers" not in body(job)["metadata"]
    patch = json.dumps({"spec": {"deletionPolicy": "Delete"}})
    where = ("finetunejob", job.name, "-n", job.namespace)
    assert job.cluster.kubectl("patch", *where, "--type=merge", "-p", patch).returncode == 0
    until("the finalizer", lambda: body(job)["metadata"].get("finalizers") == [names.FINALIZER])
    job.cluster.kubectl("delete", *where, "--cascade=foreground", "--wait=false")
    pod = until("the pod that unpublishes", lambda: unpublish_pod(job))
    operator.kill()
    until("all else of the job is gone", lambda: job.jobs() == [names.unpublish_name("a")])
    job.end_pod(pod, message="/registry/a: removed")
    operator.start(*FLAGS)
    until("the job is gone", lambda: not body(job))
    until("its Job is gone", lambda: not job.jobs())
    listed = job.cluster.kubectl("get", "events", "-n", job.namespace, "-o", "json").stdout
    told = {event["reason"]: event["message"] for event in json.loads(listed)["items"]}
    assert told[reasons.UNPUBLISHED] == "claim adapters: /registry/a: removed"
    assert reasons.LEFT_BEHIND not in told


def test_a_namespace_with_a_held_job_goes(operator: OperatorProcess, job: JobOnCluster, endpoint) -> None:
    endpoint.models = ["base", "a"]
    publish(operator, job, "Delete")
    until("the finalizer", lambda: body(job)["metadata"].get("finalizers") == [names.FINALIZER])
    job.cluster.kubectl("delete", "namespace", job.namespace, "--wait=false")
    until("the namespace is gone", lambda: not job.cluster.get(f"/api/v1/namespaces/{job.namespace}"))
