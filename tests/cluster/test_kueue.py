# SPDX-License-Identifier: Apache-2.0
"""Jobs in the queues of Kueue's own controller: held with the reason, taken away without cost, in order, all nodes or none."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cluster.kueue import Kueue, make_queues, start_queue_cluster
from support.cluster.operator_process import JobOnCluster, OperatorProcess, restricted_kubeconfig, until
from support.cluster.operator_setup import STAGES, make_claims, make_namespace
from support.clusters import Clusters
from support.samples import job_spec, result_text
from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import State, WaitingFor
from tuneyard_local.cluster import Cluster

pytestmark = pytest.mark.cluster
FLAGS = ("--resync-seconds", "5")


@pytest.fixture(scope="module")
def queue_cluster(clusters: Clusters, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Two fake nodes of four GPUs, and our kinds."""
    return start_queue_cluster(clusters, "queues", 4, STAGES, tmp_path_factory.mktemp("kwok"))


@pytest.fixture(scope="module")
def queue_kubeconfig(queue_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return restricted_kubeconfig(queue_cluster, tmp_path_factory.mktemp("operator"))


@pytest.fixture
def queue_operator(kueue: Kueue, queue_kubeconfig: Path, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator, with the rights of its chart; what it said is shown when the test fails."""
    process = OperatorProcess(queue_kubeconfig, tmp_path / "operator.log")
    process.start(*FLAGS)
    yield process
    process.kill()
    print(process.log.read_text())


class Team:
    """A namespace with its claims, and its jobs by name."""

    def __init__(self, cluster: Cluster, *jobs: str) -> None:
        self.cluster, self.name = cluster, f"t-{uuid.uuid4().hex[:10]}"
        make_namespace(cluster, self.name)
        make_claims(cluster, self.name, *jobs)

    def apply(self, name: str, gpus: int = 1, nodes: int = 1, **spec: Any) -> JobOnCluster:
        job = JobOnCluster(self.cluster, self.name, name)
        parallelism = {"nodes": nodes, "gpusPerNode": gpus}
        job.apply(job_spec(parallelism=parallelism, serve={"disabled": True}, **spec))
        return job


def is_queued(job: JobOnCluster, *words: str) -> WaitingFor:
    """What the job waits for, as soon as it is queued and says all of these words.

    Kueue (0.18.6) tells reason and position apart: either may come first, and the position goes while its scheduler
    looks at the Workload. A test that wants both names both.
    """

    def look() -> WaitingFor | None:
        status = job.status
        waiting = status.waiting_for if status.state is State.QUEUED else None
        return waiting if waiting is not None and all(each in waiting.message for each in words) else None

    try:
        # The operator looks at the front of a queue every 30 s.
        return until(f"{job.name} to be queued: {' and '.join(words)}", look, 240)
    except AssertionError as error:
        raise AssertionError(f"{error}; it says {job.status.state}: {job.status.message}") from error


def pods(job: JobOnCluster, stage: Stage) -> list[dict[str, Any]]:
    found = job.children(f"/api/v1/namespaces/{job.namespace}/pods")
    return [pod for pod in found if pod["metadata"]["labels"][names.LABEL_STAGE] == stage]


def placed(job: JobOnCluster, stage: Stage, count: int) -> list[str]:
    """The names of so many pods of a stage, as soon as all have a node."""

    def look() -> list[str] | None:
        there = [pod["metadata"]["name"] for pod in pods(job, stage) if pod["spec"].get("nodeName")]
        return there if len(there) == count else None

    return until(f"{count} placed pods of {job.name}", look)


def end_well(job: JobOnCluster, pods: list[str], stage: Stage = Stage.TRAIN) -> None:
    plan = job.status.plan
    assert plan is not None
    for pod in pods:
        job.end_pod(pod, message=result_text(stage, plan.digest))


def train(job: JobOnCluster) -> str:
    """The training pod, which runs by now."""
    pod = job.pod(Stage.TRAIN)
    job.run_pod(pod)
    job.wait_for("Trained", "False", reasons.TRAINING)
    return pod


def suspended(job: JobOnCluster, name: str) -> bool:
    body = job.cluster.get(f"/apis/batch/v1/namespaces/{job.namespace}/jobs/{name}")
    return bool(body["spec"].get("suspend"))


def test_a_job_waits_for_all_its_nodes_behind_a_full_quota_and_then_runs(
    queue_operator: OperatorProcess, queue_cluster: Cluster, kueue: Kueue
) -> None:
    team = Team(queue_cluster, "a", "b", "c")
    make_queues(queue_cluster, {team.name: 2})
    first = team.apply("a")
    first.succeed(Stage.PREPARE)
    pod = train(first)
    # Not sooner: the time for which its prepare pod waits for this test counts.
    second = team.apply("b", nodes=2, deadlines={"pendingSeconds": 60})
    second.succeed(Stage.PREPARE)  # a stage without GPUs does not wait behind them
    waiting = is_queued(
        second, f"ClusterQueue {team.name}, position 1: ", "insufficient unused quota for nvidia.com/gpu"
    )
    assert (waiting.kind, waiting.cluster_queue, waiting.position) == ("Workload", team.name, 1)
    third = team.apply("c", nodes=2)
    third.succeed(Stage.PREPARE)
    waiting_third = is_queued(third, ", position 2: ", "insufficient unused quota")
    assert waiting_third.position == 2, "behind the second, which came before"
    [held] = [entry for entry in kueue.workloads(team.name) if entry["metadata"]["name"] == waiting.name]
    assert [podset["count"] for podset in held["spec"]["podSets"]] == [2], "both nodes are one Workload"
    assert pods(second, Stage.TRAIN) == [], "one of two GPUs is free, and no pod takes it"
    end_well(first, [pod])
    first.succeed(Stage.PUBLISH)
    first.wait_for("Succeeded", "True")
    end_well(second, placed(second, Stage.TRAIN, 2))
    second.succeed(Stage.PUBLISH)
    second.wait_for("Succeeded", "True")
    training = second.status.attempts[1]
    assert (training.number, training.outcome, training.queued_since) == (1, "Succeeded", None)


def test_a_job_above_its_whole_quota_ends_at_once(
    queue_operator: OperatorProcess, queue_cluster: Cluster, kueue: Kueue
) -> None:
    team = Team(queue_cluster, "a")
    make_queues(queue_cluster, {team.name: 2})
    job = team.apply("a", gpus=4)
    job.succeed(Stage.PREPARE)
    job.wait_for("Succeeded", "False", reasons.QUOTA_TOO_SMALL)
    said = job.status.message or ""
    assert f"ClusterQueue {team.name} can never hold this training" in said
    assert "(4) > maximum capacity (2)" in said

    def workloads_of_training() -> list[str]:
        found = [entry["metadata"]["name"] for entry in kueue.workloads(team.name)]
        return [name for name in found if name.startswith("job-a-train-")]

    until("its Workload to go", lambda: not workloads_of_training())


def test_a_job_whose_place_is_taken_away_goes_on_with_the_same_attempt(
    queue_operator: OperatorProcess, queue_cluster: Cluster, kueue: Kueue
) -> None:
    owner, borrower = Team(queue_cluster, "a"), Team(queue_cluster, "a")
    make_queues(queue_cluster, {owner.name: 1, borrower.name: 1})
    strict = {"maxAttempts": 1, "maxInterruptions": 0}
    lent = borrower.apply("a", gpus=2, retry=strict)
    lent.succeed(Stage.PREPARE)
    pod = train(lent)
    own = owner.apply("a")
    own.succeed(Stage.PREPARE)
    waiting = is_queued(lent, "reclamation within the cohort")
    # Kueue tells no position until the Workload is in its queue again.
    assert waiting.message.startswith(f"ClusterQueue {borrower.name}")
    until("its pod to go", lambda: not pods(lent, Stage.TRAIN))
    assert suspended(lent, "a-train-1")
    queue_operator.kill()
    end_well(own, [own.pod(Stage.TRAIN)])
    queue_operator.start(*FLAGS)
    again = train(lent)
    assert again != pod
    end_well(lent, [again])
    for job in (own, lent):
        job.succeed(Stage.PUBLISH)
        job.wait_for("Succeeded", "True")
    trainings = [each for each in lent.status.attempts if each.stage is Stage.TRAIN]
    assert [(each.number, each.charged, each.interrupted) for each in trainings] == [(1, 0, 0)]


def test_a_named_queue_holds_the_training_alone_and_may_come_later(
    queue_operator: OperatorProcess, queue_cluster: Cluster, kueue: Kueue
) -> None:
    team = Team(queue_cluster, "a")
    job = team.apply("a", scheduling={"queue": "research"})
    job.succeed(Stage.PREPARE)
    waiting = is_queued(job, "does not exist in this namespace")
    assert (waiting.kind, waiting.name) == ("LocalQueue", "research")
    make_queues(queue_cluster, {team.name: 1}, local_queue="research")
    end_well(job, [train(job)])
    job.succeed(Stage.PUBLISH)
    job.wait_for("Succeeded", "True")
    assert len(kueue.workloads(team.name)) == 1, "neither prepare nor publish went through a queue"


@pytest.mark.long
def test_the_priority_class_of_a_job_is_its_place_in_the_queue(
    queue_operator: OperatorProcess, queue_cluster: Cluster, kueue: Kueue
) -> None:
    team = Team(queue_cluster, "a", "b", "c")
    make_queues(queue_cluster, {team.name: 1})
    kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"}
    queue_cluster.apply({**kind, "metadata": {"name": "urgent"}, "value": 1000})
    first = team.apply("a")
    first.succeed(Stage.PREPARE)
    pod = train(first)
    patient = team.apply("b")
    patient.succeed(Stage.PREPARE)
    is_queued(patient, "insufficient")
    urgent = team.apply("c", scheduling={"priorityClassName": "urgent"})
    urgent.succeed(Stage.PREPARE)
    is_queued(urgent, "insufficient")
    end_well(first, [pod])
    train(urgent)
    assert patient.status.state is State.QUEUED
    assert pods(patient, Stage.TRAIN) == []
