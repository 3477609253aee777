# SPDX-License-Identifier: Apache-2.0
"""What is typed into a form is one value of the manifest, and what comes out names the result: by Argo's own expressions."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from tuneyard_api.yaml_io import load

pytestmark = pytest.mark.cluster
Json = dict[str, Any]
Ask = Callable[..., Json]
FORM = {"model": "pvc:models/tiny-llama", "trainingData": "pvc:datasets/docstrings/train.jsonl"}
STEPS = "steps.trainings.outputs.parameters"
FAILED = "no training succeeded with a measured loss: OutOfMemory; OutOfMemory; OutOfMemory"


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
    assert set(made["spec"]) == {*parts, "model", "method", "evaluation"}
    assert made["spec"]["evaluation"] is None


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
        (["", "", ""], FAILED, FAILED),
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
    wanted = {"best": best, "bestLoss": loss}
    assert wanted.items() <= ended_sweep(argo_expressions, templates, "loss", tunedLoss=losses).items()
    promoted = promotion(argo_expressions, templates, "loss", tunedLoss=losses)
    assert promoted == ("true", best) if loss != FAILED else ("false", "")


def test_a_sweep_can_choose_by_a_score_of_which_more_is_better(
    argo_expressions: Ask, templates: dict[str, Json]
) -> None:
    measured = {"tunedLoss": ["1", "2", "3"], "tunedRougeL": ["0.25", "0.5", ""]}
    found = ended_sweep(argo_expressions, templates, "rougeL", **measured)
    assert (found["best"], found["bestLoss"], found["bestMetrics"]) == ("b", "2", '{"tuned":2}')
    assert promotion(argo_expressions, templates, "rougeL", **measured) == ("true", "b")


def ended(**measured: list[str]) -> dict[str, str]:
    """What three trainings say, as Argo hands it on."""
    nothing = {name: ["", "", ""] for name in ("tunedLoss", "tunedRougeL", "tunedExactMatch")}
    said = {
        **nothing,
        "adapter": ["a", "b", "c"],
        "digest": ["sha256:a", "sha256:b", "sha256:c"],
        "metrics": ['{"tuned":1}', '{"tuned":2}', ""],
        "message": ["OutOfMemory"] * 3,
        **measured,
    }
    return {STEPS: "[]", **{f"{STEPS}.{name}": json.dumps(values) for name, values in said.items()}}


def ended_sweep(
    argo_expressions: Ask, templates: dict[str, Json], metric: str, **measured: list[str]
) -> dict[str, str]:
    """The outputs of a sweep, or the first words of the errors in their place."""
    scope = {**ended(**measured), "inputs.parameters.metric": metric, "inputs.parameters.name": "n"}
    found = {}
    for output in templates["fine-tune-sweep"]["spec"]["templates"][0]["outputs"]["parameters"]:
        if output["name"] != "modelName":
            answer = argo_expressions(expression=output["valueFrom"]["expression"], scope=scope)
            found[output["name"]] = (
                answer["result"] if "result" in answer else answer["error"].partition(" (")[0]
            )
    return found


def promotion(
    argo_expressions: Ask, templates: dict[str, Json], metric: str, **measured: list[str]
) -> tuple[str, str]:
    """Whether a sweep promotes, and which candidate."""
    (step,) = templates["fine-tune-sweep"]["spec"]["templates"][0]["steps"][2]
    values = {**ended(**measured), "inputs.parameters.metric": metric, "inputs.parameters.name": "n"}
    values["workflow.name"] = "w"
    candidate, name, _ = step["arguments"]["parameters"]
    said = [
        argo_expressions(text=text, passes=[values])["result"]
        for text in (step["when"], candidate["value"], name["value"])
    ]
    assert said[2] == "n"
    return said[0], said[1]


def test_a_sweep_of_which_all_was_refused_says_so(argo_expressions: Ask, templates: dict[str, Json]) -> None:
    form = templates["fine-tune-sweep"]["spec"]["templates"][0]
    scope = {STEPS: "[]", "inputs.parameters.metric": "loss", "inputs.parameters.name": "n"}
    for output in form["outputs"]["parameters"]:
        error = argo_expressions(expression=output["valueFrom"]["expression"], scope=scope)["error"]
        assert error.startswith("every training was refused: the message of its step says why"), output[
            "name"
        ]
    (step,) = form["steps"][2]
    assert argo_expressions(text=step["when"], passes=[scope])["result"] == "false"


def checked(argo_expressions: Ask, template: Json, **typed: str) -> Json:
    """What the first step says about what was typed into a form."""
    check = next(each for each in template["spec"]["templates"] if each["name"] == "check")
    values = {f["name"]: f.get("value", "") for f in template["spec"]["arguments"]["parameters"]} | typed
    scope = {
        f"inputs.parameters.{entry['name']}": values[entry["name"]] for entry in check["inputs"]["parameters"]
    }
    (output,) = check["outputs"]["parameters"]
    return argo_expressions(expression=output["valueFrom"]["expression"], scope=scope)


CLAIMS = {"rawData": "pvc:raw/a b/records.jsonl", "keepIn": "pvc:curated/runs/", "name": "answers"}


def test_the_defaults_of_every_form_are_let_through(
    argo_expressions: Ask, templates: dict[str, Json]
) -> None:
    for form in ("fine-tune", "fine-tune-sweep", "finetune-pipeline"):
        assert checked(argo_expressions, templates[form], **CLAIMS) == {"result": "yes"}, form


def test_all_that_is_wrong_with_a_form_is_said_at_once(
    argo_expressions: Ask, templates: dict[str, Json]
) -> None:
    wrong = {
        "rawData": "/raw/records.jsonl",
        "keepIn": "pvc:curated/../x",
        "name": "My Adapter",
        "nearDuplicates": "maybe",
        "minRougeL": "1.5",
        "approval": 'no" != "',
        "patience": "3 days",
    }
    said = checked(argo_expressions, templates["finetune-pipeline"], **wrong)["error"]
    problems = said.partition(" (")[0].split("; ")
    assert 'approval: "no\\" != \\"" is none of required, none' in said
    assert sorted(name for name in wrong if f'{name}: "' in said) == sorted(wrong), problems


@pytest.mark.parametrize(
    ("gpus", "is_taken"),
    [("1", True), ("2", False), ("12", False), ("all", True), ("9" * 30, True), ("0", True)],
    ids=["all of the quota", "one more", "compared as numbers", "no number", "a number beyond all", "none"],
)
def test_more_gpus_than_the_whole_quota_are_refused_by_the_form(
    argo_expressions: Ask, templates: dict[str, Json], gpus: str, *, is_taken: bool
) -> None:
    for form in ("fine-tune", "fine-tune-sweep", "finetune-pipeline"):
        answer = checked(argo_expressions, templates[form], **CLAIMS, gpus=gpus)
        if is_taken:
            assert answer == {"result": "yes"}, form
        else:
            words = f'gpus: "{gpus}" is more than the quota of this namespace, which is 1'
            assert words in answer["error"], form


@pytest.mark.parametrize(
    ("typed", "taken"),
    [("3d", "72h"), ("30m", "30m"), ("1h30m", "1h30m"), ("90", "90"), ("0d", "0h")],
)
def test_days_become_hours_which_go_knows(
    argo_expressions: Ask, templates: dict[str, Json], typed: str, taken: str
) -> None:
    duration = templates["approve"]["spec"]["templates"][0]["suspend"]["duration"]
    found = argo_expressions(text=duration, passes=[{"inputs.parameters.patience": typed}])
    assert found == {"result": taken}


def test_the_trainings_of_a_sweep_have_names_of_their_own(
    argo_expressions: Ask, templates: dict[str, Json]
) -> None:
    (trainings,) = templates["fine-tune-sweep"]["spec"]["templates"][0]["steps"][1]
    given = {a["name"]: a["value"] for a in trainings["arguments"]["parameters"]}
    values = {"workflow.name": "w", "inputs.parameters.name": "s", "item": "0.0002"}
    names = [
        argo_expressions(text=given[key], passes=[values])["result"]
        for key in ("job", "adapter", "learningRate")
    ]
    assert names == ["w-0-0002", "s-0-0002", "0.0002"]
    asked = {p["name"] for p in templates["fine-tune"]["spec"]["templates"][1]["inputs"]["parameters"]}
    assert asked == set(given)
