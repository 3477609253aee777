# SPDX-License-Identifier: Apache-2.0
"""The rendered forms on Argo's own controller and executor, up to a FineTuneJob; its operator is played."""

from typing import Any

import pytest
from argo_workflows import ArgoWorkflows, wait_for

pytestmark = pytest.mark.cluster
Json = dict[str, Any]
FORM = {"model": "pvc:models/tiny-llama", "trainingData": "pvc:datasets/docstrings/train.jsonl"}


def result(adapter: str, loss: float) -> Json:
    scores = {"perplexity": 2.0, "exactMatch": 0.5, "rougeL": 0.5, "prompts": 2}
    metrics = {"base": {"loss": 3.5, **scores}, "tuned": {"loss": loss, **scores}}
    return {
        "adapter": {"name": adapter, "digest": "sha256:0", "path": adapter},
        "metrics": metrics,
        "modelName": adapter,
    }


def test_the_form_makes_a_job_and_succeeds_with_it(workflows: ArgoWorkflows) -> None:
    name = workflows.submit("fine-tune", **FORM, name="docstrings")
    job = workflows.one_job(name)
    assert job["metadata"]["name"] == name
    assert "ownerReferences" not in job["metadata"]
    spec = job["spec"]
    assert spec["model"]["pvc"] == {"claimName": "models", "path": "tiny-llama"}
    assert spec["dataset"]["training"]["pvc"] == {"claimName": "datasets", "path": "docstrings/train.jsonl"}
    assert "test" not in spec["dataset"]
    assert "serve" not in spec
    assert spec["publish"] == {"adapterName": "docstrings"}
    assert (spec["training"]["epochs"], spec["training"]["learningRate"]) == (1, 0.0002)
    workflows.end_job(name, "Succeeded", "served", result("docstrings", 3.125))
    status = workflows.ended(name)
    assert (status["phase"], status.get("message", "")) == ("Succeeded", "")
    assert workflows.outputs(name) == {
        "adapter": "docstrings",
        "digest": "sha256:0",
        "modelName": "docstrings",
        "endpoint": "",
        "baseLoss": "3.5",
        "tunedLoss": "3.125",
    }


def test_a_job_that_fails_fails_the_workflow_with_its_words(workflows: ArgoWorkflows) -> None:
    words = 'BadInput: line 3 has no "prompt" {{workflow.name}}; try another file'
    name = workflows.submit("fine-tune", **FORM)
    assert workflows.one_job(name)["spec"]["publish"] == {"adapterName": name}
    workflows.end_job(name, "Failed", words)
    status = workflows.ended(name)
    assert status["phase"] in {"Failed", "Error"}
    assert words in status["message"]


def test_a_pod_that_is_lost_trains_nothing_twice(workflows: ArgoWorkflows) -> None:
    name = workflows.submit("fine-tune", **FORM)
    job = workflows.one_job(name)
    workflows.lose_pod(name)
    again = wait_for(
        "a second pod",
        lambda: [
            n for n in workflows.workflow(name)["status"]["nodes"].values() if n["displayName"] == "job(1)"
        ],
    )
    assert again[0]["type"] == "Pod"
    workflows.end_job(name, "Succeeded", "served", result("a", 3.0))
    assert workflows.ended(name)["phase"] == "Succeeded"
    assert [j["metadata"]["uid"] for j in workflows.jobs(name)] == [job["metadata"]["uid"]]


def test_every_form_of_a_source_becomes_what_it_says(workflows: ArgoWorkflows) -> None:
    digest = "0" * 64
    name = workflows.submit(
        "fine-tune",
        model="owner/base@v2",
        trainingData=f"https://example.com/a/b.jsonl?x=1#{digest}",
        testData="owner/data/folder/test.parquet",
        method="sft",
        learningRate="1e-5",
        gpus="4",
        endpoint="http://server.models:8000",
    )
    spec = workflows.one_job(name)["spec"]
    assert spec["model"]["huggingFace"] == {"repo": "owner/base", "revision": "v2"}
    assert spec["dataset"]["training"]["http"] == {
        "url": "https://example.com/a/b.jsonl?x=1",
        "sha256": digest,
    }
    test = spec["dataset"]["test"]["huggingFace"]
    assert (test["repo"], test["path"]) == ("owner/data", "folder/test.parquet")
    assert (spec["method"], spec["training"]["learningRate"]) == ("sft", 1e-5)
    assert spec["parallelism"]["gpusPerNode"] == 4
    assert spec["serve"]["endpoint"] == "http://server.models:8000"


ATTACKS = [
    "x\n  suspend: true",
    'x"\n  suspend: true\n  y: "',
    "x', suspend: true, y: '",
    '{{="x\\"\\n  suspend: true"}}',
    "{{='\\\\\"\\\\n  suspend: true\\\\n  y: \\\\\"'}}",
    "{{=toJson('x') + '\\n  suspend: true'}}",
    "{{workflow.parameters.model}}",
]  # fmt: skip


@pytest.mark.parametrize("value", ATTACKS)
def test_what_is_typed_never_becomes_another_field(workflows: ArgoWorkflows, value: str) -> None:
    """The API server takes the name for what it is, and refuses it; or there is a job, and it is not suspended."""
    name = workflows.submit("fine-tune", **FORM, name=value)
    found = wait_for(
        "a job or an end",
        lambda: workflows.jobs(name) or [workflows.workflow(name)] * (workflows.workflow(name).get("status", {}).get("phase") in {"Failed", "Error"}),
    )[0]  # fmt: skip
    if found["kind"] == "FineTuneJob":
        assert found["spec"]["suspend"] is False
    else:
        assert "spec.publish.adapterName" in workflows.ended(name)["message"]


def test_what_the_api_server_refuses_is_said_in_its_words(workflows: ArgoWorkflows) -> None:
    name = workflows.submit("fine-tune", **FORM, learningRate="fast")
    status = workflows.ended(name)
    assert status["phase"] in {"Failed", "Error"}
    assert "spec.training.learningRate" in status["message"]
    assert workflows.jobs(name) == []


def test_a_sweep_names_the_best_and_runs_two_at_a_time(workflows: ArgoWorkflows) -> None:
    workflows.most_at_once = 0
    name = workflows.submit("fine-tune-sweep", **FORM, name="s", learningRates='["1e-4", "0.0002", "5e-4"]')
    losses = {"1e-4": 3.25, "0-0002": None, "5e-4": 3.125}
    left = {f"{name}-{rate}": (rate, loss) for rate, loss in losses.items()}
    while left:
        job = wait_for(
            "the next job", lambda: [j for j in workflows.jobs(name) if j["metadata"]["name"] in left]
        )[0]
        rate, loss = left.pop(job["metadata"]["name"])
        assert job["spec"]["publish"]["adapterName"] == f"s-{rate}"
        if loss:
            workflows.end_job(job["metadata"]["name"], "Succeeded", "served", result(f"s-{rate}", loss))
        else:
            workflows.end_job(job["metadata"]["name"], "Failed", "OutOfMemory: try less")
    assert workflows.ended(name)["phase"] == "Succeeded"
    assert workflows.outputs(name) == {"best": "s-5e-4", "bestLoss": "3.125"}
    assert workflows.most_at_once <= 2


def test_a_sweep_of_failures_fails_with_their_words(workflows: ArgoWorkflows) -> None:
    name = workflows.submit("fine-tune-sweep", **FORM, learningRates='["1e-4"]')
    workflows.one_job(name)
    workflows.end_job(f"{name}-1e-4", "Failed", "OutOfMemory: try less")
    status = workflows.ended(name)
    assert status["phase"] in {"Failed", "Error"}
    assert "OutOfMemory: try less" in status["message"]
