# SPDX-License-Identifier: Apache-2.0
"""What is typed into a form becomes the FineTuneJob that it says and nothing else: by Argo's own expressions and a real API server."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from rendered_forms import rendered
from tuneyard_api.job import FineTuneJob
from tuneyard_api.yaml_io import dump_all, load
from tuneyard_local.cluster import Cluster

pytestmark = pytest.mark.cluster
Json = dict[str, Any]
Ask = Callable[..., Json]
FORM = {"model": "pvc:models/tiny-llama", "trainingData": "pvc:datasets/docstrings/train.jsonl"}
DIGEST = "0" * 64
STEPS = "steps.trainings.outputs.parameters"


@pytest.fixture
def manifest(argo_expressions: Ask, templates: dict[str, Json]) -> Callable[..., str]:
    """The manifest that an executor would apply, for what is typed into the form `fine-tune`."""
    spec = templates["fine-tune"]["spec"]
    form, train = spec["templates"]
    (step,) = form["steps"][0]
    workflow = {"workflow.name": "fine-tune-x"}

    def make(**typed: str) -> str:
        fields = {f["name"]: f.get("value") for f in spec["arguments"]["parameters"]} | typed
        values = workflow | {f"inputs.parameters.{name}": value for name, value in fields.items()}
        given = {}
        for argument in step["arguments"]["parameters"]:
            answer = argo_expressions(text=argument["value"], passes=[workflow, values])
            given[f"inputs.parameters.{argument['name']}"] = answer["result"]
        # As Argo does: what holds for the workflow, then the template's inputs, then once more when the pod is made.
        answer = argo_expressions(
            text=train["resource"]["manifest"],
            passes=[workflow, workflow | given, workflow | given | {"pod.name": "p"}],
        )
        assert "error" not in answer, answer
        return str(answer["result"])

    return make


def create(server: Cluster, text: str) -> tuple[int, str]:
    done = server.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-", stdin=text
    )
    return done.returncode, done.stdout or done.stderr


def test_the_api_server_takes_every_rendered_object_strictly(server: Cluster, namespace: str) -> None:
    done = server.kubectl("apply", "--validate=strict", "-f", "-", stdin=dump_all(rendered(namespace)))
    assert done.returncode == 0, done.stderr
    back = server.kubectl("-n", namespace, "get", "workflowtemplate", "fine-tune", "-o", "json")
    ours = next(
        o
        for o in rendered(namespace)
        if o["metadata"]["name"] == "fine-tune" and "templates" in o.get("spec", {})
    )
    assert json.loads(back.stdout)["spec"] == ours["spec"]


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
    done = server.kubectl("apply", "-f", "-", stdin=dump_all(rendered(namespace)))
    assert done.returncode == 0, done.stderr
    account = f"system:serviceaccount:{namespace}:fine-tune"
    asked = server.kubectl("auth", "can-i", verb, what, "-n", namespace, f"--as={account}")
    assert (asked.stdout.strip() == "yes") is may


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
    assert spec["publish"] == {"adapterName": "fine-tune-x"}
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
        "revision": "main",
    }
    assert (spec["method"], spec["publish"]["adapterName"]) == ("sft", "answers")
    training = spec["training"]
    assert (training["epochs"], training["learningRate"], training["maxSequenceLength"]) == (0.5, 1e-5, 2048)
    assert spec["parallelism"]["gpusPerNode"] == 4
    assert spec["serve"]["endpoint"] == "http://server.models:8000"


NASTY = [
    "x\n  suspend: true",
    'x"\n  suspend: true\n  y: "',
    "x', suspend: true, y: '",
    'x\\"\n  suspend: true #',
    "{{workflow.name}}",
    "x{{=toJson('y') + '\\n  suspend: true'}}",
    "{{=sprig.fail('no')}}",
    "{{{{=1}}}}",
    "x}}{{",
    "\u2028 é \t #",
]


@pytest.mark.parametrize("value", NASTY)
@pytest.mark.parametrize("field", ["name", "model", "testData", "learningRate"])
def test_what_is_typed_is_one_value_and_never_another_field(
    manifest: Callable[..., str], field: str, value: str
) -> None:
    typed = FORM | {"testData": "pvc:d/t.jsonl", "endpoint": "http://e:8000", field: value}
    made = load(manifest(**typed)).value
    assert set(made) == {"apiVersion", "kind", "metadata", "spec"}
    parts = {name: set(part) for name, part in made["spec"].items() if isinstance(part, dict)}
    assert parts.pop("model") <= {"pvc", "huggingFace"}
    assert parts == {
        "dataset": {"training", "test"},
        "runtime": {"name"},
        "training": {"epochs", "learningRate", "maxSequenceLength"},
        "parallelism": {"gpusPerNode"},
        "publish": {"adapterName"},
        "serve": {"endpoint"},
    }
    assert set(made["spec"]) == {*parts, "model", "method"}


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


def test_a_form_ends_with_the_adapter_or_with_the_job_s_words(
    argo_expressions: Ask, templates: dict[str, Json]
) -> None:
    output = templates["fine-tune"]["spec"]["templates"][0]["outputs"]["parameters"][0]
    expression, prefix = output["valueFrom"]["expression"], "steps.job.outputs.parameters"
    good = {f"{prefix}.state": "Succeeded", f"{prefix}.adapter": "a", f"{prefix}.message": ""}
    assert argo_expressions(expression=expression, scope=good) == {"result": "a"}
    bad = good | {f"{prefix}.state": "Failed", f"{prefix}.message": 'BadInput: no "prompt" in {{line}} 3'}
    assert argo_expressions(expression=expression, scope=bad)["error"].startswith(
        'BadInput: no "prompt" in {{line}} 3'
    )


@pytest.mark.parametrize(
    ("losses", "best", "loss"),
    [
        (["3.25", "3.5", "3.125"], "c", "3.125"),
        (["10.5", "9.75", ""], "b", "9.75"),
        (["", "", ""], "OutOfMemory; OutOfMemory; OutOfMemory", "OutOfMemory; OutOfMemory; OutOfMemory"),
    ],
    ids=[
        "the lowest held-out loss",
        "numbers and not letters decide, a failure does not count",
        "all failed",
    ],
)
def test_a_sweep_names_the_best(
    argo_expressions: Ask, templates: dict[str, Json], losses: list[str], best: str, loss: str
) -> None:
    outputs = templates["fine-tune-sweep"]["spec"]["templates"][0]["outputs"]["parameters"]
    scope = {
        STEPS: "[]",
        f"{STEPS}.tunedLoss": json.dumps(losses),
        f"{STEPS}.adapter": '["a", "b", "c"]',
        f"{STEPS}.message": json.dumps(["OutOfMemory"] * 3),
    }
    for output, wanted in zip(outputs, (best, loss), strict=True):
        answer = argo_expressions(expression=output["valueFrom"]["expression"], scope=scope)
        assert (answer.get("result") or answer["error"]).startswith(wanted)


def test_the_trainings_of_a_sweep_have_names_of_their_own(
    argo_expressions: Ask, templates: dict[str, Json]
) -> None:
    (trainings,) = templates["fine-tune-sweep"]["spec"]["templates"][0]["steps"][0]
    given = {a["name"]: a["value"] for a in trainings["arguments"]["parameters"]}
    values = {"workflow.name": "w", "inputs.parameters.name": "s", "item": "0.0002"}
    names = [
        argo_expressions(text=given[key], passes=[values])["result"]
        for key in ("job", "adapter", "learningRate")
    ]
    assert names == ["w-0-0002", "s-0-0002", "0.0002"]
    asked = {p["name"] for p in templates["fine-tune"]["spec"]["templates"][1]["inputs"]["parameters"]}
    assert asked == set(given)
