# SPDX-License-Identifier: Apache-2.0
"""The operator is killed (SIGKILL) at each step of the chain; the next one goes on and repeats nothing.

The job has the deletionPolicy Delete: at its end its adapter leaves the registry with it.
"""

import os
import signal
from pathlib import Path

import pytest
from support.bench import Bench, build_job
from tuneyard_local import installation
from tuneyard_local.cluster import Cluster
from tuneyard_local.progress import wait_until

SURVIVOR = "survivor"
STEPS = ("Accepted", "Planned", "DataReady", "Scheduled", "Trained", "Evaluated", "Published", "Served")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


def operator_pids(cluster: Cluster) -> list[int]:
    """Processes of the operator's containers: children, at some depth, of this cluster's own containerds."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            groups = (entry / "cgroup").read_text()
        except OSError:
            continue
        if b"tuneyard_operator.main" in words and (cluster.plan.cgroup or "") in groups:
            found.append(int(entry.name))
    return found


def kill_operator(cluster: Cluster) -> None:
    """SIGKILL, then a new pod at once instead of the kubelet's back-off."""
    pids = operator_pids(cluster)
    assert pids, "no operator process runs"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    selector = f"app.kubernetes.io/instance={installation.RELEASE}"
    cluster.kubectl(
        "-n",
        installation.SYSTEM_NAMESPACE,
        "delete",
        "pods",
        "-l",
        selector,
        "--force",
        "--grace-period=0",
        "--wait=false",
    )
    installation.wait_for_deployment(cluster, installation.SYSTEM_NAMESPACE, installation.RELEASE)
    wait_until("the operator to come back", lambda: bool(set(operator_pids(cluster)) - set(pids)), 180)


@pytest.fixture(scope="module")
def killed(bench: Bench) -> list[str]:
    """The conditions of job SURVIVOR after which the operator was killed; the job has succeeded."""
    seen: list[str] = []
    bench.apply(build_job(SURVIVOR, deletionPolicy="Delete"))
    for _ in STEPS:
        status = bench.wait(
            SURVIVOR,
            f"a step after {seen}",
            lambda status, done=tuple(seen): any(
                each["status"] == "True" and each["type"] in STEPS and each["type"] not in done
                for each in status.get("conditions", ())
            ),
            400,
        )
        seen += [
            each["type"]
            for each in status["conditions"]
            if each["status"] == "True" and each["type"] not in seen
        ]
        if status.get("state") == "Succeeded":
            break
        kill_operator(bench.cluster)
    bench.wait_for_state(SURVIVOR, "Succeeded", 400)
    return seen


def test_killed_at_each_step_and_nothing_done_twice(bench: Bench, killed: list[str]) -> None:
    assert [
        (each["stage"], each["number"], each["outcome"]) for each in bench.status(SURVIVOR)["attempts"]
    ] == [
        ("prepare", 1, "Succeeded"),
        ("train", 1, "Succeeded"),
        ("publish", 1, "Succeeded"),
    ]
    names = sorted(each["metadata"]["name"] for each in bench.list("jobs", f"tuneyard.io/job={SURVIVOR}"))
    assert names == [f"{SURVIVOR}-{stage}-1" for stage in ("prepare", "publish", "train")]
    assert len(bench.list("pods", f"tuneyard.io/job={SURVIVOR}")) == 3
    assert {"DataReady", "Published"} <= set(killed)


@pytest.mark.usefixtures("killed")
def test_a_deleted_job_takes_its_adapter_out_of_the_registry(bench: Bench) -> None:
    adapter = bench.registry() / bench.status(SURVIVOR)["result"]["adapter"]["name"]
    assert adapter.is_dir()
    bench.cluster.kubectl("-n", bench.namespace, "delete", "ftj", SURVIVOR, "--wait=false")
    wait_until(f"{SURVIVOR} to be gone", lambda: bench.get("finetunejobs", SURVIVOR) is None, 120)
    assert not adapter.exists()
    selector = f"tuneyard.io/job={SURVIVOR}"
    wait_until(
        "its Jobs and pods to be gone",
        lambda: not bench.list("jobs", selector) and not bench.list("pods", selector),
        180,
    )
