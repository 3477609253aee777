# SPDX-License-Identifier: Apache-2.0
"""One training on two real nodes by torchrun: it loses one of them for good, goes on on the others and finishes.

That its losses are those of an undisturbed run is shown without a cluster (tests/training/test_training_processes.py).
"""

import json
import re
from pathlib import Path

import pytest
from support.faults.history import History, wait_until
from support.faults.invariants import assert_nothing_lost
from support.faults.lost_nodes import give_up, lost
from tuneyard_api import yaml_io
from tuneyard_api.names import workspace_name
from tuneyard_local.paths import REPOSITORY
from tuneyard_local.storage import folder_behind

JOB_FILE = REPOSITORY / "examples" / "two-nodes.yaml"

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(1200)]


def train_pods(bench, job, attempt):
    return bench.list("pods", f"tuneyard.io/job={job},tuneyard.io/stage=train,tuneyard.io/attempt={attempt}")


def test_two_nodes_train_lose_one_for_good_and_finish(bench) -> None:
    document = yaml_io.load(JOB_FILE.read_text(), str(JOB_FILE)).value
    name, spec = document["metadata"]["name"], document["spec"]
    steps, every = spec["training"]["maxSteps"], spec["checkpoint"]["everySteps"]

    with History(bench.cluster) as history:
        bench.apply(document)
        wait_until("a checkpoint", lambda: checkpoints(bench, name), 300)
        first = train_pods(bench, name, 1)
        by_index = {
            pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]: pod for pod in first
        }
        gone = by_index["1"]["spec"]["nodeName"]
        assert {pod["spec"]["nodeName"] for pod in first} - {gone}, "each pod has a node of its own"
        with lost(bench.cluster, gone):
            give_up(bench.cluster, gone)
            status = bench.wait_for_state(name, "Succeeded", 400)
            second = train_pods(bench, name, 2)
        assert_nothing_lost(history, bench.namespace, bench.registry())

    claim = bench.get("pvc", workspace_name(name))
    assert claim
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    trained = [each for each in status["attempts"] if each["stage"] == "train"]
    assert [(each["outcome"], each.get("failureClass")) for each in trained] == [
        ("Failed", "Interrupted"),
        ("Succeeded", None),
    ]
    assert f"on {gone}: DeletionByTaintManager" in trained[0]["message"]
    assert trained[1].get("charged", 0) == 0, "a lost node is nobody's fault"
    assert len({pod["spec"]["nodeName"] for pod in second} - {gone}) == 2
    facts = [facts_of(pod) for pod in second]
    assert facts[0] == facts[1]
    assert (facts[0]["processes"], facts[0]["steps"]) == (2, steps)
    assert facts[0]["resumedFromStep"] >= every
    assert status["result"]["steps"] == steps
    assert steps_done(bench, name) == list(range(1, steps + 1)), "each once, over both attempts"
    planned = next(each["message"] for each in status["conditions"] if each["type"] == "Planned")
    assert re.match(r"2 processes on 2 nodes, which share 1 GiB ReadWriteMany; global batch 16 = ", planned)


def workspace(bench, job) -> Path:
    """Which all nodes share."""
    return folder_behind(bench.cluster, bench.namespace, workspace_name(job)) or Path("/nowhere")


def checkpoints(bench, job):
    return sorted(path.name for path in workspace(bench, job).glob("checkpoints/step-*"))


def steps_done(bench, job):
    lines = map(json.loads, (workspace(bench, job) / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if "loss" in line]


def facts_of(pod):
    [container] = pod["status"]["containerStatuses"]
    return json.loads(container["state"]["terminated"]["message"])["facts"]
