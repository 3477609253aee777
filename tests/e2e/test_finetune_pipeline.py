# SPDX-License-Identifier: Apache-2.0
"""Submitted forms on Argo Workflows' own controller, with its executor's pods on real nodes and trainings on CPU."""

import json

import pytest
from support.bench import Bench
from support.workflows import TRAINING, digest_of, ended, outputs_of, wait
from tuneyard.client import Client
from tuneyard_local import installation
from tuneyard_local.argo_workflows import NAME, ArgoWorkflows
from tuneyard_local.demo import ask, pipeline
from tuneyard_local.demo.follow import waiting_approval
from tuneyard_local.forms import PLACES

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(1500)]


def test_from_raw_records_to_an_approved_adapter_that_answers(
    bench: Bench, client: Client, argo_workflows: ArgoWorkflows
) -> None:
    form = {**TRAINING, **PLACES, "name": "approved", "gate": "notWorseThanBase"}
    workflow = client.submit("finetune-pipeline", form).name
    node = wait(bench, workflow, "the question", lambda body: waiting_approval(body.get("status", {})), 900)
    assert not (bench.registry() / "approved").exists(), "nothing has the name before it is approved"
    candidate = client.get(workflow).status.result
    assert candidate is not None
    pipeline.answer(bench.cluster, workflow, node, is_approved=True)
    body = wait(bench, workflow, "the end", ended("Succeeded"), 300)
    report = json.loads(outputs_of(body, "curate")["report"])
    assert report["training"] + report["test"] == pipeline.RECORDS
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
