# SPDX-License-Identifier: Apache-2.0
"""Submitted forms on Argo Workflows' own controller, with its executor's pods on real nodes and trainings on CPU."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bench import Bench
from tuneyard.client import Client
from tuneyard_local import images, installation
from tuneyard_local.argo_workflows import NAME, ArgoWorkflows
from tuneyard_local.demo import ask
from tuneyard_local.images import ENVIRONMENT_MOUNT
from tuneyard_local.progress import Progress
from tuneyard_local.storage import bind_folder
from tuneyard_workflows.form import Offer
from tuneyard_workflows.templates import build_account, build_templates

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(1500)]
Json = dict[str, Any]
CLEAN = 600
MODEL = f"pvc:models/{installation.BASE_MODEL}"
TRAINING = {"model": MODEL, "maxSequenceLength": "256", "learningRate": "0.003", "epochs": "0.2"}


@pytest.fixture(scope="module")
def argo_workflows(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgoWorkflows]:
    """The controller, the templates of the namespace of jobs, dirty records, and a claim for curated ones."""
    executor = images.build_argoexec(Progress())
    images.load_images(bench.cluster, executor)
    argo = ArgoWorkflows(bench.cluster, executor.reference)
    argo.install()
    argo.start()
    offer = Offer(
        namespace=bench.namespace,
        runtimes=(installation.RUNTIME,),
        methods=("lora",),
        image=bench.parts.trainer.reference,
        image_pull_policy="Never",
        mounts=(("pytorch", ENVIRONMENT_MOUNT),),
    )
    raw = tmp_path_factory.mktemp("raw")
    raw.chmod(0o755)
    write_dirty(bench.parts.datasets / "docstrings" / "train.jsonl", raw / "records.jsonl")
    bind_folder(bench.cluster, bench.namespace, "raw", raw, read_only=True)
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    bench.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "curated"}, "spec": claim},
        *build_account(bench.namespace),
        *build_templates(offer),
    )
    yield argo
    bench.cluster.processes.stop(NAME)


def write_dirty(source: Path, target: Path) -> None:
    """Real records, with eight that are not to be trained on."""
    lines = source.read_text().splitlines()[:CLEAN]
    first = json.loads(lines[0])
    shouted = {**first, "completion": first["completion"].upper()}
    personal = {**first, "completion": "Write to ada@example.com or call +49 30 1234567."}
    dirt = [
        lines[1],
        lines[1],
        json.dumps(shouted),
        json.dumps(personal),
        "{torn",
        "[1]",
        "{}",
        json.dumps({"prompt": 1}),
    ]
    target.write_text("\n".join([*lines, *dirt]) + "\n")
    target.chmod(0o644)


@pytest.fixture(scope="module")
def client(bench: Bench) -> Client:
    return Client(bench.namespace, kubeconfig=Path(bench.cluster.kubeconfig))


def wait(bench: Bench, name: str, what: str, is_so: Callable[[Json], Any], seconds: float) -> Any:
    """The first true answer about the Workflow; fails with its nodes and its pods on timeout or when it has ended."""
    end, body = time.monotonic() + seconds, None
    while time.monotonic() < end:
        body = bench.get("workflows", name)
        if body and (answer := is_so(body)):
            return answer
        if body and body.get("status", {}).get("phase") in {"Failed", "Error", "Succeeded"}:
            break
        time.sleep(1)
    nodes = [
        f"{node['displayName']}: {node['phase']}: {node.get('message', '')}"
        for node in (body or {}).get("status", {}).get("nodes", {}).values()
    ]
    said = (body or {}).get("status", {}).get("message")
    label = f"workflows.argoproj.io/workflow={name}"
    pods = bench.cluster.kubectl("-n", bench.namespace, "describe", "pods", "-l", label).stdout
    log = bench.cluster.processes.log(NAME).read_text()[-3000:]
    pytest.fail("\n".join([f"{name}: waited for {what}: {said}", *nodes, pods[-5000:], log]))


def ended(phase: str) -> Callable[[Json], Json | None]:
    return lambda body: body if body.get("status", {}).get("phase") == phase else None


def outputs_of(body: Json, step: str) -> dict[str, str]:
    """The outputs of the node of a step; the whole workflow's node has its name."""
    nodes = body["status"]["nodes"].values()
    found = next(node for node in nodes if node["displayName"] == step and node.get("outputs"))
    return {entry["name"]: entry["value"] for entry in found["outputs"]["parameters"]}


def waiting_approval(body: Json) -> str | None:
    nodes = body.get("status", {}).get("nodes", {}).items()
    return next(
        (key for key, node in nodes if node["type"] == "Suspend" and node["phase"] == "Running"), None
    )


def approve(bench: Bench, workflow: str, node: str, answer: str) -> None:
    """What Argo's page does when a person fills in the answer."""
    given = {"phase": "Succeeded", "outputs": {"parameters": [{"name": "approved", "value": answer}]}}
    patch = json.dumps({"status": {"nodes": {node: given}}})
    done = bench.cluster.kubectl(
        "-n", bench.namespace, "patch", "workflow", workflow, "--type=merge", "-p", patch
    )
    assert done.returncode == 0, done.stderr


def digest_of(bench: Bench, name: str) -> str:
    return f"sha256:{(bench.registry() / name).readlink().name}"


def test_from_raw_records_to_an_approved_adapter_that_answers(
    bench: Bench, client: Client, argo_workflows: ArgoWorkflows
) -> None:
    form = {
        **TRAINING,
        "name": "approved",
        "rawData": "pvc:raw/records.jsonl",
        "keepIn": "pvc:curated/runs",
        "gate": "notWorseThanBase",
    }
    workflow = client.submit("finetune-pipeline", form).name
    node = wait(bench, workflow, "the question", waiting_approval, 900)
    assert not (bench.registry() / "approved").exists(), "nothing has the name before it is approved"
    candidate = client.get(workflow).status.result
    assert candidate is not None
    approve(bench, workflow, node, "yes")
    body = wait(bench, workflow, "the end", ended("Succeeded"), 300)
    report = json.loads(outputs_of(body, "curate")["report"])
    assert report["training"] + report["test"] == CLEAN
    assert {reason: found["records"] for reason, found in report["dropped"].items()} == {
        "duplicate": 2,
        "near duplicate": 1,
        "personal data": 1,
        "unreadable": 2,
        "unusable": 2,
    }
    results = outputs_of(body, workflow)
    assert results["modelName"] == "approved"
    assert results["digest"] == digest_of(bench, "approved") == digest_of(bench, workflow)
    metrics = json.loads(results["metrics"])
    assert metrics["tuned"]["loss"] < metrics["base"]["loss"]
    assert float(results["rougeL"]) == pytest.approx(metrics["tuned"]["rougeL"], abs=0.02)
    with ask.forwarded(
        bench.cluster.kubeconfig, bench.namespace, installation.SERVICE, installation.SERVICE_PORT
    ) as url:
        said = ask.completion(url, "approved", "def read_lines(path):", 64)
    assert results["answer"].strip() == said


def test_a_stopped_workflow_suspends_its_job_or_lets_it_go_on(
    bench: Bench, client: Client, argo_workflows: ArgoWorkflows
) -> None:
    form = {**TRAINING, "trainingData": "pvc:datasets/docstrings/train.jsonl", "epochs": "50"}
    both = {
        choice: client.submit("fine-tune", {**form, "onCancel": choice}).name
        for choice in ("suspend", "continue")
    }
    for name in both.values():
        bench.wait(name, "a plan", lambda status: status.get("plan"), 120)
        bench.cluster.kubectl(
            "-n",
            bench.namespace,
            "patch",
            "workflow",
            name,
            "--type=merge",
            "-p",
            '{"spec": {"shutdown": "Stop"}}',
        )
    for name in both.values():
        body = wait(bench, name, "the stop", ended("Failed"), 120)
        assert body["status"]["message"] == "Stopped with strategy 'Stop'"
    suspends = {
        choice: (bench.get("finetunejobs", name) or {})["spec"]["suspend"] for choice, name in both.items()
    }
    assert suspends == {"suspend": True, "continue": False}
    for name in both.values():
        bench.cluster.kubectl("-n", bench.namespace, "delete", "finetunejob", name, "--wait=false")


def test_a_sweep_survives_its_controller_and_promotes_the_best(
    bench: Bench, client: Client, argo_workflows: ArgoWorkflows
) -> None:
    rates = ["3e-3", "1e-9", "5"]
    form = {name: value for name, value in TRAINING.items() if name != "learningRate"}
    form |= {
        "trainingData": "pvc:datasets/docstrings/validation.jsonl",
        "testData": "pvc:datasets/docstrings/test.jsonl",
        "learningRates": json.dumps(rates),
        "name": "best",
    }
    workflow = client.submit("fine-tune-sweep", form, name="sweep").name
    bench.wait(f"{workflow}-3e-3", "a plan", lambda status: status.get("plan"), 120)
    bench.cluster.processes.kill(NAME)
    bench.wait_for_state(f"{workflow}-3e-3", "Succeeded", 600)
    bench.cluster.processes.start_again(NAME)
    body = wait(bench, workflow, "the end", ended("Succeeded"), 900)
    results = outputs_of(body, workflow)
    assert (results["best"], results["modelName"]) == ("best-3e-3", "best")
    assert results["digest"] == digest_of(bench, "best") == digest_of(bench, "best-3e-3")
    tuned = {rate: bench.status(f"{workflow}-{rate}") for rate in ("3e-3", "1e-9")}
    losses = {rate: status["result"]["metrics"]["tuned"]["loss"] for rate, status in tuned.items()}
    assert float(results["bestLoss"]) == losses["3e-3"] < losses["1e-9"]
    assert not bench.get("finetunejobs", f"{workflow}-5"), "a learning rate of 5 is refused by the API server"
