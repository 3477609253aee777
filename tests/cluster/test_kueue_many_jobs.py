# SPDX-License-Identifier: Apache-2.0
"""Twelve jobs of two namespaces share four GPUs by Kueue while it and the operator are killed: never more than four."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.cluster.kueue import Kueue, make_queues, start_queue_cluster
from support.cluster.operator_process import JobOnCluster, OperatorProcess, restricted_kubeconfig, until
from support.cluster.operator_setup import STAGES, make_claims, make_namespace
from support.clusters import Clusters
from support.samples import job_spec, result_text
from tuneyard_api import names
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import State
from tuneyard_local.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1200)]
TEAMS = ("left", "right")
QUOTA = 4
SHAPES = {"one": (1, 1), "two": (1, 2), "three": (1, 3), "four": (1, 4), "pair": (2, 1), "pairs": (2, 2)}
"""Nodes, and GPUs of each: 1 to 4 GPUs. Each team has one job of every shape."""
SAMPLE_EVERY = 0.1
FLAGS = ("--resync-seconds", "5")
PODS_MOVE = """
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-runs}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
      - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
      - {key: .status.phase, operator: In, values: [Pending]}
  next:
    statusTemplate: |
      phase: Running
      podIP: 127.0.0.1
      podIPs: [{ip: 127.0.0.1}]
      containerStatuses:
      - {name: trainer, image: x, imageID: "", ready: true, restartCount: 0, state: {running: {startedAt: {{ Now | Quote }}}}}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-succeeds}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
      - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
      - {key: .status.phase, operator: In, values: [Running]}
  delay: {durationMilliseconds: 2000, jitterDurationMilliseconds: 5000}
  next:
    statusTemplate: |
      {{ $results := dict "prepare" `@PREPARE@` "train" `@TRAIN@` "publish" `@PUBLISH@` }}
      {{ $result := index $results (index .metadata.labels "@STAGE@") }}
      {{ $message := replace "@DIGEST@" (index .metadata.annotations "@PLAN@") $result }}
      phase: Succeeded
      containerStatuses:
      - {name: trainer, image: x, imageID: "", ready: false, restartCount: 0, state: {terminated: {exitCode: 0, reason: Completed, message: {{ $message | Quote }}}}}
"""


def moving_pods() -> str:
    """The Stages of kwok by which every pod runs for some seconds and succeeds as its stage does."""
    text = PODS_MOVE.replace("@STAGE@", names.LABEL_STAGE).replace("@PLAN@", names.ANNOTATION_PLAN)
    for stage in Stage:
        text = text.replace(f"@{stage.name}@", result_text(stage, "@DIGEST@"))
    return STAGES + text


@pytest.fixture(scope="module")
def queue_cluster(clusters: Clusters, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Two nodes of eight GPUs: the quota is what is short."""
    return start_queue_cluster(clusters, "many-queued", 8, moving_pods(), tmp_path_factory.mktemp("kwok"))


@dataclass
class Samples:
    """What was seen of the GPUs that pods hold, from the moment that a pod is placed until it has ended."""

    cluster: Cluster
    gpus: list[int] = field(default_factory=list)
    queued: set[str] = field(default_factory=set)
    """Jobs that were seen in state Queued."""

    def take(self) -> None:
        found = self.cluster.get(f"/api/v1/pods?labelSelector={names.LABEL_STAGE}={Stage.TRAIN}")
        if found is not None:
            self.gpus.append(sum(map(_gpus, found["items"])))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take one every moment in a thread beside."""
        is_over = threading.Event()

        def sample() -> None:
            while not is_over.wait(SAMPLE_EVERY):
                self.take()

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def _gpus(pod: dict[str, Any]) -> int:
    if pod["status"]["phase"] in {"Succeeded", "Failed"} or not pod["spec"].get("nodeName"):
        return 0
    return int(pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])


def test_twelve_jobs_share_four_gpus_whatever_is_killed(
    queue_cluster: Cluster, kueue: Kueue, tmp_path: Path
) -> None:
    for team in TEAMS:
        make_namespace(queue_cluster, team)
        make_claims(queue_cluster, team, *SHAPES)
    make_queues(queue_cluster, dict.fromkeys(TEAMS, QUOTA // len(TEAMS)))
    operator = OperatorProcess(restricted_kubeconfig(queue_cluster, tmp_path), tmp_path / "operator.log")
    jobs = [JobOnCluster(queue_cluster, team, shape) for team in TEAMS for shape in SHAPES]
    samples = Samples(queue_cluster)

    def done() -> int:
        states = [job.status.state for job in jobs]
        samples.queued.update(
            f"{job.namespace}/{job.name}"
            for job, state in zip(jobs, states, strict=True)
            if state is State.QUEUED
        )
        return states.count(State.SUCCEEDED)

    try:
        operator.start(*FLAGS)
        with samples.running():
            for job in jobs:
                nodes, gpus = SHAPES[job.name]
                strict = {"maxAttempts": 1, "maxInterruptions": 0}
                parallelism = {"nodes": nodes, "gpusPerNode": gpus}
                batch = {"globalBatchSize": 12}
                job.apply(
                    job_spec(parallelism=parallelism, training=batch, retry=strict, serve={"disabled": True})
                )
            until("two to succeed", lambda: done() >= 2, 200)
            kueue.kill()
            until("another pod to end without Kueue", lambda: done() >= 3 or samples.gpus[-1] < QUOTA, 60)
            kueue.start()
            until("four to succeed", lambda: done() >= 4, 200)
            operator.kill()
            until("the GPUs to change hands without the operator", lambda: samples.gpus[-1] < QUOTA, 60)
            operator.start(*FLAGS)
            until("seven to succeed", lambda: done() >= 7, 200)
            kueue.kill()
            operator.kill()
            kueue.start()
            operator.start(*FLAGS)
            until("all to succeed", lambda: done() == len(jobs), 400)
    except AssertionError as error:
        told = {f"{job.namespace}/{job.name}": job.status.message for job in jobs}
        raise AssertionError(f"{error}: {told}\n{operator.said()}") from error
    finally:
        operator.kill()
    assert max(samples.gpus) <= QUOTA, (
        f"{max(samples.gpus)} GPUs of {QUOTA} in one of {len(samples.gpus)} samples"
    )
    assert max(samples.gpus) == QUOTA, "the quota was never used up, so it was never put to the test"
    assert len(samples.gpus) > 100
    assert samples.queued, "no job was ever queued"
    for job in jobs:
        counts = {(each.number, each.charged, each.interrupted) for each in job.status.attempts}
        assert counts == {(1, 0, 0)}, f"{job.namespace}/{job.name}: {job.status.attempts}"
