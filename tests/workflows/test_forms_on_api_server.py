# SPDX-License-Identifier: Apache-2.0
"""A real API server takes the rendered templates, and takes or refuses what their forms make."""

import json
from collections.abc import Callable

import pytest
from support.forms.rendered import rendered
from tuneyard_api.job import FineTuneJob
from tuneyard_api.yaml_io import dump_all
from tuneyard_local.cluster import Cluster
from tuneyard_local.progress import wait_until

pytestmark = pytest.mark.cluster
FORM = {"model": "pvc:models/tiny-llama", "trainingData": "pvc:datasets/docstrings/train.jsonl"}
DIGEST = "0" * 64


def create(server: Cluster, text: str) -> tuple[int, str]:
    done = server.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-", stdin=text
    )
    return done.returncode, done.stdout or done.stderr


@pytest.mark.parametrize(
    ("verb", "what", "may"),
    [
        ("create", "finetunejobs.tuneyard.io", True),
        ("patch", "finetunejobs.tuneyard.io", True),
        ("get", "finetunejobs.tuneyard.io", True),
        ("create", "workflowtaskresults.argoproj.io", True),
        ("patch", "workflowtaskresults.argoproj.io", True),
        ("delete", "finetunejobs.tuneyard.io", False),
        ("list", "finetunejobs.tuneyard.io", False),
        ("get", "secrets", False),
        ("create", "pods", False),
    ],
)
def test_the_account_of_the_pods_may_what_it_must(
    server: Cluster, namespace: str, verb: str, what: str, may: bool
) -> None:
    done = server.kubectl("apply", "--validate=strict", "-f", "-", stdin=dump_all(rendered(namespace)))
    assert done.returncode == 0, done.stderr
    account = f"system:serviceaccount:{namespace}:fine-tune"

    def can(verb: str, what: str) -> bool:
        asked = server.kubectl("auth", "can-i", verb, what, "-n", namespace, f"--as={account}")
        return asked.stdout.strip() == "yes"

    # A moment passes until the API server reckons with a new role.
    wait_until("the role to count", lambda: can("create", "finetunejobs.tuneyard.io"), 120)
    assert can(verb, what) is may


def test_the_least_that_is_typed_becomes_a_job(server: Cluster, manifest: Callable[..., str]) -> None:
    code, said = create(server, manifest(**FORM))
    assert code == 0, said
    job = json.loads(said)
    assert job["metadata"]["name"] == "fine-tune-x"
    assert job["metadata"]["labels"] == {"workflows.argoproj.io/workflow": "fine-tune-x"}
    spec = job["spec"]
    assert spec["model"]["pvc"] == {"claimName": "models", "path": "tiny-llama"}
    assert spec["dataset"]["training"] == {"pvc": {"claimName": "datasets", "path": "docstrings/train.jsonl"}}
    assert not {"test", "validation"} & spec["dataset"].keys()
    assert "serve" not in spec
    assert "gate" not in spec["evaluation"]
    assert spec["publish"].pop("trial")
    assert spec["publish"] == {"adapterName": "fine-tune-x", "replace": False}
    assert FineTuneJob.model_validate(job).spec.training.learning_rate == 2e-4


def test_everything_that_can_be_typed_becomes_what_it_says(
    server: Cluster, manifest: Callable[..., str]
) -> None:
    typed = {
        "name": "answers",
        "model": "owner/base@v2",
        "trainingData": f"https://example.com/a/b.jsonl?x=1#{DIGEST}",
        "testData": "owner/data/folder/test.parquet",
        "method": "sft",
        "epochs": "0.5",
        "learningRate": "1e-5",
        "maxSequenceLength": "2048",
        "gpus": "4",
        "endpoint": "http://server.models:8000",
        "gate": "notWorseThanBase",
    }
    code, said = create(server, manifest(**typed))
    assert code == 0, said
    spec = json.loads(said)["spec"]
    assert spec["model"]["huggingFace"] == {"repo": "owner/base", "revision": "v2"}
    assert spec["dataset"]["training"]["http"] == {
        "url": "https://example.com/a/b.jsonl?x=1",
        "sha256": DIGEST,
    }
    assert spec["dataset"]["test"]["huggingFace"] == {
        "repo": "owner/data",
        "path": "folder/test.parquet",
    }
    assert (spec["method"], spec["publish"]["adapterName"]) == ("sft", "answers")
    training = spec["training"]
    assert (training["epochs"], training["learningRate"], training["maxSequenceLength"]) == (0.5, 1e-5, 2048)
    assert spec["parallelism"]["gpusPerNode"] == 4
    assert spec["serve"]["endpoint"] == "http://server.models:8000"
    assert spec["evaluation"]["gate"] == {"mustNotRegress": {"base": {"loss": 0.0}}}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("learningRate", "fast", "spec.training.learningRate"),
        ("gpus", "all", "spec.parallelism.gpusPerNode"),
        ("name", "My Adapter", "spec.publish.adapterName"),
        ("name", "x\n  suspend: true", "spec.publish.adapterName"),
        ("trainingData", "https://example.com/a.jsonl", "spec.dataset.training.http.sha256"),
        ("model", "{{workflow.status}}", "spec.model.huggingFace.repo"),
    ],
)
def test_what_is_wrong_is_refused_by_the_field_s_name(
    server: Cluster, manifest: Callable[..., str], field: str, value: str, words: str
) -> None:
    code, said = create(server, manifest(**FORM | {field: value}))
    assert code != 0
    assert words in said
