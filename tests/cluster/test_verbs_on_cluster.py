# SPDX-License-Identifier: Apache-2.0
"""kubectl finds its plugin, and the verbs say of a real API server's objects what the operator knows of them."""

import json
import os
import subprocess

import pytest
from support.cluster.operator_process import JobOnCluster, OperatorProcess, until
from support.samples import job_spec
from tuneyard_api.ledger import Part
from tuneyard_api.pod_contract import Stage
from tuneyard_local.cluster import Cluster
from tuneyard_local.paths import script

pytestmark = pytest.mark.cluster


class Plugin:
    """`kubectl tuneyard` as a person calls it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def __call__(self, *words: str, code: int = 0) -> str:
        verb, *rest = words
        command = ["kubectl", "tuneyard", verb, "-n", self.namespace, *rest]
        path = f"{script('kubectl').parent}:{os.environ['PATH']}"
        environ = {**os.environ, "PATH": path, "KUBECONFIG": str(self.cluster.kubeconfig)}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


def test_the_verbs_follow_a_job(
    operator: OperatorProcess, job: JobOnCluster, endpoint, bare_cluster: Cluster
) -> None:
    endpoint.models = ["base", "a"]
    tuneyard = Plugin(bare_cluster, job.namespace)
    assert "There is no FineTuneJob in namespace" in tuneyard("list")
    assert "there is no FineTuneJob b in namespace" in tuneyard("why", "b", code=1)
    operator.start("--resync-seconds", "5")
    job.apply(job_spec())
    job.succeed(Stage.PREPARE)
    pod = job.pod(Stage.TRAIN)
    assert json.loads(tuneyard("list", "-o", "json"))[0]["metadata"]["name"] == "a"
    assert "has not started, so it has no log" in tuneyard("logs", "a", code=1)
    job.run_pod(pod)
    job.wait_for("Trained", "False", "Training")
    assert "it is training: trains (attempt 1)" in tuneyard("why", "a")
    tuneyard("suspend", "a")
    until(
        "the attempt is stopped", lambda: job.status.attempts[-1].stopping or job.status.state == "Suspended"
    )
    tuneyard("resume", "a")
    job.succeed(Stage.TRAIN, 2)
    job.succeed(Stage.PUBLISH)
    job.wait_for("Succeeded", "True")
    job.told("Succeeded")
    ledger = job.status.ledger
    assert ledger is not None
    wall = sum(ledger.seconds.by_part().values())
    assert wall > 0
    assert ledger.gpu_seconds <= wall
    assert ledger.seconds.by_part()[Part.PREPARING] >= 0
    said = tuneyard("describe", "a")
    assert "a in" in said
    assert "Succeeded" in said
    assert "GPU hours" in said
    assert "Normal  Succeeded" in said
    assert job.namespace in tuneyard("top")
