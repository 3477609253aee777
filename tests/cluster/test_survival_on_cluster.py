# SPDX-License-Identifier: Apache-2.0
"""Suspend, resume, smaller micro batch and clean-up with the chart's rights, a real Job controller and garbage collector."""

import json
from typing import Any

import pytest
from support.cluster.operator_process import JobOnCluster, OperatorProcess, until
from support.samples import failure_text, job_spec
from tuneyard_api import reasons
from tuneyard_api.pod_contract import ENV_MICRO_BATCH, FailureClass, Stage
from tuneyard_api.status import State

pytestmark = pytest.mark.cluster
FLAGS = ("--resync-seconds", "5")


def edit(job: JobOnCluster, **spec: Any) -> None:
    where = ("patch", "finetunejob", job.name, "-n", job.namespace, "--type=merge")
    answer = job.cluster.kubectl(*where, "-p", json.dumps({"spec": spec}))
    assert answer.returncode == 0, answer.stderr


def pods(job: JobOnCluster) -> list[str]:
    return [pod["metadata"]["name"] for pod in job.children(f"/api/v1/namespaces/{job.namespace}/pods")]


def test_suspended_it_holds_no_pod_and_resumed_it_continues(
    operator: OperatorProcess, job: JobOnCluster
) -> None:
    operator.start(*FLAGS)
    job.apply(job_spec(training={"globalBatchSize": 8, "microBatchSize": 4}))
    job.succeed(Stage.PREPARE)
    first = job.pod(Stage.TRAIN)
    job.run_pod(first)
    job.wait_for("Trained", "False", reasons.TRAINING)
    edit(job, suspend=True)
    job.wait_for("Suspended", "True")
    assert job.status.state is State.SUSPENDED
    assert first not in pods(job)
    assert job.jobs() == ["a-prepare-1"]
    operator.kill()
    edit(job, suspend=False)
    operator.start(*FLAGS)
    second = job.pod(Stage.TRAIN, attempt=2)
    job.wait_for("Suspended", "False", reasons.RESUMED)
    job.run_pod(second)
    digest = job.status.plan.digest
    words = failure_text(Stage.TRAIN, digest, FailureClass.OUT_OF_MEMORY, "CUDA out of memory")
    job.end_pod(second, exit_code=15, reason="Error", message=words)
    third = job.pod(Stage.TRAIN, attempt=3)
    [container] = job.cluster.get(f"/api/v1/namespaces/{job.namespace}/pods/{third}")["spec"]["containers"]
    assert {"name": ENV_MICRO_BATCH, "value": "2"} in container["env"]
    job.run_pod(third)
    job.wait_for("Trained", "False", reasons.TRAINING)
    assert "micro batch 2" in (job.status.message or "")
    assert [each.outcome for each in job.status.attempts] == ["Succeeded", "Stopped", "Failed", "Running"]


def test_after_its_time_everything_goes_but_the_job(operator: OperatorProcess, job: JobOnCluster) -> None:
    operator.start(*FLAGS)
    job.apply(job_spec())
    pod = job.pod(Stage.PREPARE)
    job.wait_for("DataReady", "False")
    words = failure_text(Stage.PREPARE, job.status.plan.digest, FailureClass.BAD_INPUT, "no")
    job.end_pod(pod, exit_code=10, reason="Error", message=words)
    job.wait_for("Succeeded", "False", "BadInput")
    assert job.jobs() == ["a-prepare-1"]
    edit(job, ttl={"afterFailureSeconds": 0})
    core = f"/api/v1/namespaces/{job.namespace}"
    until("all children are gone", lambda: not [*job.jobs(), *pods(job)])
    until(
        "plan and workspace are gone",
        lambda: not [*job.children(f"{core}/configmaps"), *job.children(f"{core}/persistentvolumeclaims")],
    )
    # It is written when all has been deleted.
    until("it is said that they were removed", lambda: job.status.cleaned)
    assert job.conditions()["Succeeded"] == ("False", "BadInput")


def test_a_deadline_ends_the_job_and_its_pod(operator: OperatorProcess, job: JobOnCluster) -> None:
    operator.start(*FLAGS)
    job.apply(job_spec())
    job.run_pod(job.pod(Stage.PREPARE))
    edit(job, deadlines={"activeSeconds": 3})  # not before: the pod must be there to be ended
    job.wait_for("Succeeded", "False", reasons.ACTIVE_DEADLINE)
    until("nothing runs", lambda: not [*job.jobs(), *pods(job)])


def test_without_kueue_a_job_that_names_a_queue_says_so_and_runs_nothing(
    operator: OperatorProcess, job: JobOnCluster
) -> None:
    operator.start(*FLAGS)
    job.apply(job_spec(scheduling={"queue": "gpus"}))
    job.succeed(Stage.PREPARE)
    waiting = job.waits_for(reasons.QUEUED, "this cluster has no Kueue")
    assert (waiting.kind, waiting.name) == ("LocalQueue", "gpus")
    assert job.conditions()["Scheduled"] == ("False", reasons.QUEUED)
    assert job.status.state is State.QUEUED
    assert [pod for pod in pods(job) if "train" in pod] == []
    assert "bug" not in operator.said()
