# SPDX-License-Identifier: Apache-2.0
"""One training on two real nodes by torchrun: it loses a pod half-way, goes on from its checkpoint and finishes."""

import json
import re

import pytest
from tuneyard_api import yaml_io
from tuneyard_local.paths import REPOSITORY

JOB_FILE = REPOSITORY / "examples" / "two-nodes.yaml"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


def train_pods(bench, job, attempt):
    return bench.list("pods", f"tuneyard.io/job={job},tuneyard.io/stage=train,tuneyard.io/attempt={attempt}")


def test_two_nodes_train_lose_a_pod_and_finish(bench) -> None:
    document = yaml_io.load(JOB_FILE.read_text(), str(JOB_FILE)).value
    bench.apply(document)
    name, steps = document["metadata"]["name"], document["spec"]["training"]["maxSteps"]
    every = document["spec"]["checkpoint"]["everySteps"]

    def has_checkpoint(status) -> bool:
        step = (status.get("progress") or {}).get("step", 0)
        return step > every and status.get("state") == "Training"

    bench.wait(name, "a checkpoint", has_checkpoint, 600)
    first = train_pods(bench, name, 1)
    assert len({pod["spec"]["nodeName"] for pod in first}) == 2
    claim = bench.get("pvc", f"{name}-workspace")
    assert claim
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    [lost] = [
        pod for pod in first if pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == "1"
    ]
    bench.cluster.kubectl(
        "-n", bench.namespace, "delete", "pod", lost["metadata"]["name"], "--force", "--grace-period=0"
    )

    status = bench.wait_for_state(name, "Succeeded", 600)
    trained = [each for each in status["attempts"] if each["stage"] == "train"]
    assert [(each["outcome"], each.get("failureClass")) for each in trained] == [
        ("Failed", "Interrupted"),
        ("Succeeded", None),
    ]
    second = train_pods(bench, name, 2)
    assert len({pod["spec"]["nodeName"] for pod in second}) == 2
    facts = [facts_of(pod) for pod in second]
    assert facts[0] == facts[1]
    assert (facts[0]["processes"], facts[0]["steps"]) == (2, steps)
    assert facts[0]["resumedFromStep"] >= every
    assert status["result"]["steps"] == steps
    planned = next(each["message"] for each in status["conditions"] if each["type"] == "Planned")
    assert re.match(r"2 processes on 2 nodes, which share 1 GiB ReadWriteMany; global batch 16 = ", planned)


def facts_of(pod):
    [container] = pod["status"]["containerStatuses"]
    return json.loads(container["state"]["terminated"]["message"])["facts"]
