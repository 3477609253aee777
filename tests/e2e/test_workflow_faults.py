# SPDX-License-Identifier: Apache-2.0
"""What goes wrong around a submitted form, on Argo Workflows' own controller: each ends in words, and nothing is lost."""

import json
import time

import pytest
from support.bench import Bench
from support.workflows import MODEL, TRAINING, digest_of, ended, outputs_of, said_by, wait
from tuneyard.client import Client
from tuneyard_local.argo_workflows import ArgoWorkflows
from tuneyard_local.forms import PLACES

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(1200)]
DATA = {"trainingData": "pvc:datasets/docstrings/validation.jsonl"}
SWEEP = {name: value for name, value in TRAINING.items() if name != "learningRate"}


def create(bench: Bench, template: str, name: str, parameters: dict[str, str]) -> None:
    """Create a Workflow as anybody can who may create one; no program of ours looks at its parameters."""
    given = [{"name": key, "value": value} for key, value in parameters.items()]
    bench.apply(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"name": name},
            "spec": {"workflowTemplateRef": {"name": template}, "arguments": {"parameters": given}},
        }
    )


@pytest.mark.parametrize(
    ("template", "wrong", "words"),
    [
        ("fine-tune", {"onCancel": "never"}, ['onCancel: "never" is none of suspend, continue']),
        (
            "finetune-pipeline",
            {"approval": "Required", "patience": "3 days", "name": "My Adapter"},
            ['name: "My Adapter"', 'approval: "Required" is none of required, none', 'patience: "3 days"'],
        ),
        ("fine-tune-sweep", {"metric": "accuracy"}, ['metric: "accuracy" is none of loss, rougeL, exactMatch']),
    ],
    ids=["one job", "all that is wrong at once", "a sweep"],
)  # fmt: skip
def test_a_value_outside_its_enum_is_refused_before_anything_is_done(
    bench: Bench, argo_workflows: ArgoWorkflows, template: str, wrong: dict[str, str], words: list[str]
) -> None:
    right = {"model": MODEL, **DATA}
    if template == "finetune-pipeline":
        right = {"model": MODEL, **PLACES, "name": "n"}
    name = f"refused-{template}"
    create(bench, template, name, {**right, **wrong})
    body = wait(bench, name, "the refusal", ended("Failed", "Error"), 180)
    assert all(word in said_by(body) for word in words), said_by(body)
    assert all(word in body["status"]["message"] for word in words)
    assert not bench.get("finetunejobs", name)
    assert not bench.list("pods", f"workflows.argoproj.io/workflow={name}")


def test_what_the_api_server_refuses_is_said_by_the_step(
    bench: Bench, client: Client, argo_workflows: ArgoWorkflows
) -> None:
    one = client.submit("fine-tune", {**TRAINING, **DATA, "learningRate": "5"}).name
    rates = json.dumps(["5", "7"])
    many = client.submit("fine-tune-sweep", {**SWEEP, **DATA, "learningRates": rates, "name": "none"}).name
    body = wait(bench, one, "the refusal", ended("Failed", "Error"), 120)
    assert "spec.training.learningRate" in said_by(body), said_by(body)
    body = wait(bench, many, "the refusal", ended("Failed", "Error"), 120)
    assert "every training was refused" in body["status"]["message"]
    assert said_by(body).count("spec.training.learningRate: Invalid value") >= len(("5", "7"))
    assert not bench.list("finetunejobs", f"workflows.argoproj.io/workflow={many}")


def test_a_training_that_fails_is_left_out_of_its_sweep(
    bench: Bench, client: Client, argo_workflows: ArgoWorkflows
) -> None:
    form = {
        **SWEEP,
        **DATA,
        "testData": "pvc:datasets/docstrings/test.jsonl",
        "learningRates": json.dumps(["1", "3e-3"]),
        "gate": "notWorseThanBase",
        "name": "good",
    }
    workflow = client.submit("fine-tune-sweep", form).name
    body = wait(bench, workflow, "the end", ended("Succeeded"), 900)
    assert bench.status(f"{workflow}-1")["state"] == "Failed"
    results = outputs_of(body, workflow)
    assert (results["best"], results["modelName"]) == ("good-3e-3", "good")
    assert not (bench.registry() / "good-1").exists()


def test_an_approval_that_never_comes_is_a_no(
    bench: Bench, client: Client, argo_workflows: ArgoWorkflows
) -> None:
    form = {**TRAINING, **PLACES, "epochs": "0.1", "name": "unanswered", "patience": "5s"}
    workflow = client.submit("finetune-pipeline", form).name
    body = wait(bench, workflow, "the end", ended("Failed", "Error"), 900)
    assert f"not approved: the candidate {workflow} keeps its own name" in body["status"]["message"]
    assert not (bench.registry() / "unanswered").exists()
    assert digest_of(bench, workflow)


def test_days_of_patience_are_waited_for(bench: Bench, client: Client, argo_workflows: ArgoWorkflows) -> None:
    name = client.submit("approve", {"what": "nothing"}, name="patient").name
    wait(bench, name, "the question", lambda body: body.get("status", {}).get("nodes"), 180)
    time.sleep(5)
    (node,) = (bench.get("workflows", name) or {})["status"]["nodes"].values()
    assert (node["phase"], node.get("message", "")) == ("Running", "")
    bench.cluster.kubectl("-n", bench.namespace, "delete", "workflow", name)
