# SPDX-License-Identifier: Apache-2.0
"""What happens to trainers on real nodes: killed, out of memory, evicted, pre-empted, without disk, node or checkpoint.

All jobs run side by side, each with a script that injures it; a test waits for its own and looks at what came of it.
"""

import json
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bench import Bench
from support.faults.containers import send, trainers
from support.faults.history import Body, History
from support.faults.invariants import assert_nothing_lost
from support.faults.patients import EVERY, NAMESPACE, STEPS, Patient, Ward, build_patient, furnish, pause
from tuneyard_api.names import workspace_name
from tuneyard_local import installation
from tuneyard_local.storage import bind_folder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]
SMALL_DISK = "full-disk"


def end_four_ways(patient: Patient) -> None:
    """Each after a checkpoint of its own; the fifth attempt finishes."""
    cluster = patient.bench.cluster
    send(trainers(cluster, patient.training(1)["metadata"]["uid"]), signal.SIGKILL)
    patient.attempt("train", 1)
    send(trainers(cluster, patient.training(2)["metadata"]["uid"])[:1], signal.SIGTERM)
    patient.attempt("train", 2)
    name = patient.training(3)["metadata"]["name"]
    cluster.kubectl("delete", "pod", name, "-n", NAMESPACE, "--wait=false")
    patient.attempt("train", 3)
    name = patient.training(4)["metadata"]["name"]
    metadata = {"name": name, "namespace": NAMESPACE}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
    patient.history.api.ask(path, method="POST", body=eviction)
    patient.ends("Succeeded")


def corrupt_the_newest_checkpoint(patient: Patient) -> None:
    pod = patient.training(1)
    patient.wait("two checkpoints", lambda: len(patient.steps()) > 1)
    send(trainers(patient.bench.cluster, pod["metadata"]["uid"]))
    *_, older, newest = patient.steps()
    file = (
        patient.workspace() / "checkpoints" / f"step-{newest:09d}" / "parameters-00000-of-00001.safetensors"
    )
    content = bytearray(file.read_bytes())
    content[-1] ^= 0xFF
    file.write_bytes(content)
    patient.evidence["older"] = older
    patient.ends("Succeeded")


def preempt_and_then_lose_the_node(patient: Patient) -> None:
    """First a pod of higher priority wants all GPUs of the node; then the node's kubelet stops and its containers die."""
    cluster = patient.bench.cluster
    patient.training(1)
    urgent = build_urgent_pod(patient.bench)
    cluster.apply(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": "urgent"},
            "value": 1000,
        },
        urgent,
    )
    patient.attempt("train", 1)
    cluster.kubectl("delete", "pod", "urgent", "-n", NAMESPACE, "--force", "--grace-period=0")
    pod = patient.training(2)
    cluster.processes.kill("kubelet-node-1")
    send(trainers(cluster, pod["metadata"]["uid"]))
    pause(5)
    patient.evidence["jobs meanwhile"] = len(patient.bench.list("jobs", f"tuneyard.io/job={patient.name}"))
    cluster.processes.start_again("kubelet-node-1")
    patient.ends("Succeeded")


def run_out_of_memory(patient: Patient) -> None:
    patient.attempt("train", 1)
    patient.bench.cluster.kubectl("delete", "ftj", patient.name, "-n", NAMESPACE, "--wait=false")


def just_fail(patient: Patient) -> None:
    patient.ends("Failed")


def build_urgent_pod(bench: Bench) -> Body:
    server = installation.build_endpoint(NAMESPACE, bench.parts.server)[0]["spec"]["template"]["spec"]
    container = {
        "name": "waits",
        "image": bench.parts.server.reference,
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", "import time; time.sleep(600)"],
        "resources": {"limits": {"nvidia.com/gpu": "8"}},
        "securityContext": server["containers"][0]["securityContext"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "urgent", "namespace": NAMESPACE},
        "spec": {
            "priorityClassName": "urgent",
            "nodeSelector": {"kubernetes.io/hostname": "node-1"},
            "securityContext": {**server["securityContext"], "runAsUser": 12345},
            "containers": [container],
        },
    }


def bind_small_disk(bench: Bench, folder: Path) -> None:
    """A workspace too small for the first stage, and full in earnest: a tmpfs, which each node has for itself."""
    folder.mkdir()
    for node in bench.cluster.plan.nodes:
        words = ["mount", "-t", "tmpfs", "-o", "size=512k,mode=0777", "tmpfs", str(folder)]
        subprocess.run([*bench.cluster.processes.enter(node), *words], check=True)
    claim = {"namespace": NAMESPACE, "name": workspace_name(SMALL_DISK)}
    bench.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": SMALL_DISK},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
                "storageClassName": "small-disk",
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": claim,
                "hostPath": {"path": str(folder), "type": "Directory"},
            },
        }
    )


def copy_model_with_nan(folder: Path) -> None:
    """The base model with a norm of nothing but NaN: its loss is NaN on whatever record."""
    target = folder / "broken"
    shutil.copytree(installation.MODELS / installation.BASE_MODEL, target)
    file = target / "model.safetensors"
    content = bytearray(file.read_bytes())
    [length] = struct.unpack("<Q", content[:8])
    begin, end = json.loads(content[8 : 8 + length])["model.norm.weight"]["data_offsets"]
    content[8 + length + begin : 8 + length + end] = b"\xff" * (end - begin)
    file.write_bytes(content)


@pytest.fixture(scope="module")
def history(bench: Bench) -> Iterator[History]:
    with History(bench.cluster) as history:
        yield history


@pytest.fixture(scope="module")
def ward(bench: Bench, history: History, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """All patients, admitted at once."""
    bench = furnish(bench)
    folder = tmp_path_factory.mktemp("ward")
    for parent in (folder, *list(folder.parents)[:2]):
        parent.chmod(0o755)
    copy_model_with_nan(folder)
    bind_folder(bench.cluster, NAMESPACE, "broken-models", folder, read_only=True)
    bind_small_disk(bench, folder / "disk")
    broken = {"pvc": {"claimName": "broken-models", "path": "broken"}}
    ward = Ward(bench, history)
    ward.admit(end_four_ways, build_patient("killed"))
    ward.admit(preempt_and_then_lose_the_node, build_patient("unlucky", "node-1"))
    ward.admit(corrupt_the_newest_checkpoint, build_patient("corrupt"))
    ward.admit(run_out_of_memory, build_patient("hungry", resources={"memoryGiB": 0.2}))
    ward.admit(just_fail, build_patient(SMALL_DISK, workspace={"storageClassName": "small-disk"}))
    ward.admit(just_fail, build_patient("nan", model=broken))
    yield ward
    ward.close()


def test_a_killed_trainer_continues_from_its_checkpoint(ward: Ward) -> None:
    first = ward.patient("killed").attempt("train", 1)
    assert first["failureClass"] == "Interrupted"
    assert "SIGKILL" in first["message"]


def test_sigterm_is_a_checkpoint_and_an_interruption(ward: Ward) -> None:
    second = ward.patient("killed").attempt("train", 2)
    assert second["failureClass"] == "Interrupted"
    # In its own words, so it had time to leave in order; between two steps with a checkpoint, in an evaluation with the last.
    assert "continues from the" in second["message"]


@pytest.mark.parametrize(
    ("number", "disruption"), [(3, ""), (4, "EvictionByEvictionAPI")], ids=["deleted", "evicted"]
)
def test_a_pod_that_is_taken_away_is_an_interruption(ward: Ward, number: int, disruption: str) -> None:
    patient = ward.patient("killed")
    assert patient.attempt("train", number)["failureClass"] == "Interrupted"
    assert patient.disruption(number) == disruption


def test_what_was_interrupted_four_times_has_trained_each_step_once(ward: Ward) -> None:
    patient = ward.patient("killed")
    assert patient.resumed_from() >= 4 * EVERY, (
        "each attempt began where a checkpoint of the one before ended"
    )
    lines = map(json.loads, (patient.workspace() / "metrics.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
    assert len(patient.status["attempts"]) == 1 + 5 + 1


def test_a_corrupt_checkpoint_is_passed_over_for_the_one_before(ward: Ward) -> None:
    patient = ward.patient("corrupt")
    assert patient.resumed_from() == patient.evidence["older"]


def test_a_preempted_pod_starts_again_when_there_is_room(ward: Ward) -> None:
    patient = ward.patient("unlucky")
    assert patient.attempt("train", 1)["failureClass"] == "Interrupted"
    assert patient.disruption(1) == "PreemptionByScheduler"


def test_while_a_node_is_away_nothing_else_is_started_and_then_it_continues(ward: Ward) -> None:
    patient = ward.patient("unlucky")
    assert patient.attempt("train", 2)["failureClass"] == "Interrupted"
    assert patient.evidence["jobs meanwhile"] == 3, "prepare and two trainings: the pod may still be alive"
    assert patient.resumed_from() > 0


def test_a_trainer_above_its_memory_limit_is_out_of_memory(ward: Ward) -> None:
    ended = [
        event.body["status"] for event in events_of(ward, "hungry") if event.body["status"].get("attempts")
    ][-1]
    training = next(each for each in ended["attempts"] if each["stage"] == "train")
    assert training["failureClass"] == "OutOfMemory"
    assert "OOMKilled at its memory limit of 205Mi" in training["message"]


def test_a_full_disk_is_named_and_not_tried_again(ward: Ward) -> None:
    status = ward.patient(SMALL_DISK).status
    assert status["conditions"][-1]["reason"] == "DiskFull", status["message"]
    assert "No space left on device" in status["message"]
    assert len(status["attempts"]) == 1


def test_a_loss_that_is_not_a_number_ends_the_job(ward: Ward) -> None:
    status = ward.patient("nan").status
    assert status["conditions"][-1]["reason"] == "NonFiniteLoss"
    assert "the base model, before training: the loss on the held-out records is nan" in status["message"]


def test_nothing_is_lost_doubled_or_orphaned(ward: Ward, history: History) -> None:
    for name in ("killed", "unlucky", "corrupt", SMALL_DISK, "nan"):
        ward.patient(name)
    assert_nothing_lost(history, NAMESPACE, ward.bench.registry())


def events_of(ward: Ward, name: str) -> list[Any]:
    """All that was ever seen of a FineTuneJob; it may be gone."""
    ward.patient(name)
    return [
        each
        for each in ward.history.happened(namespace=NAMESPACE)
        if each.kind == "FineTuneJob" and each.body["metadata"]["name"] == name and "status" in each.body
    ]
