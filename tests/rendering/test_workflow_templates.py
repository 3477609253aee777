# SPDX-License-Identifier: Apache-2.0
"""The forms of Argo Workflows: when they are rendered, what they offer, what their pods may do, that they fit Argo's CRDs."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tuneyard.catalog import catalog, pins
from tuneyard.checks.custom_kinds import add, check
from tuneyard.environment.model import Environment
from tuneyard.pipeline import build
from tuneyard.stack.model import Stack
from tuneyard.stack.order import waves
from tuneyard.stack.resolve import resolve
from tuneyard_api.job import FineTuneJobSpec
from tuneyard_api.status import State
from tuneyard_api.yaml_io import load
from tuneyard_local.parts import part_files
from tuneyard_workflows.form import Offer
from tuneyard_workflows.job_manifest import build_manifest
from tuneyard_workflows.templates import build_templates

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]


def stack(**changes: Any) -> Stack:
    environment = Environment.model_validate(
        {
            "name": "t",
            "preset": "open",
            "argocd": {"repoUrl": "https://git.example.com/g.git"},
            "gpus": {"nodes": [{"product": "NVIDIA-L40S", "nodes": 2, "gpusPerNode": 2, "memoryGiB": 48}]},
            "storage": {
                "readWriteOnce": {"className": "block"},
                "readWriteMany": {"className": "files"},
            },
            "fineTuning": {
                "runtimes": [
                    {"name": "hf", "methods": ["lora", "sft"]},
                    {"name": "cpu", "accelerator": "none"},
                ],
                "namespaces": [{"name": "team-a"}, {"name": "team-b"}],
            },
            "components": {"argo-workflows": {"enabled": True}},
            **changes,
        }
    )
    return resolve(environment, catalog(environment), pins())


def objects(of: Stack) -> list[Json]:
    component = of.component("workflow-templates")
    assert component
    assert component.objects
    return list(component.objects(of))


def template(of: Stack, name: str = "fine-tune", namespace: str = "team-a") -> Json:
    return next(
        o
        for o in objects(of)
        if o["kind"] == "WorkflowTemplate" and o["metadata"]["name"] == name
        if o["metadata"]["namespace"] == namespace
    )


NO_NAMESPACES = {"runtimes": [{"name": "hf"}]}


@pytest.mark.parametrize(
    ("changes", "is_there"),
    [
        ({}, True),
        ({"components": {}}, False),
        ({"components": {"workflow-templates": {"enabled": True}}}, True),
        ({"components": {"argo-workflows": {"enabled": True}, "workflow-templates": {"enabled": False}}}, False),
        ({"fineTuning": NO_NAMESPACES}, False),
    ],
    ids=[
        "beside argo workflows",
        "no argo workflows",
        "asked for, which brings argo workflows",
        "switched off",
        "nowhere to run",
    ],
)  # fmt: skip
def test_it_is_there_where_workflows_and_fine_tuning_are(changes: Json, is_there: bool) -> None:
    found = stack(**changes)
    assert (found.component("workflow-templates") is not None) is is_there
    if is_there:
        depth = waves(found)
        for other in ("argo-workflows", "tuneyard-crds", "fine-tuning"):
            assert depth["workflow-templates"] > depth[other]


def test_the_form_offers_what_the_environment_has_and_the_defaults_of_a_job() -> None:
    fields = {f["name"]: f for f in template(stack())["spec"]["arguments"]["parameters"]}
    assert fields["runtime"]["enum"] == ["hf", "cpu"]
    assert fields["method"]["enum"] == ["lora", "sft"]
    training = FineTuneJobSpec.model_fields["training"].default
    assert float(fields["learningRate"]["value"]) == training.learning_rate
    assert int(fields["maxSequenceLength"]["value"]) == training.max_sequence_length
    assert [name for name, field in fields.items() if "value" not in field] == ["model", "trainingData"]
    assert all(field["description"] for field in fields.values())
    for field in fields.values():
        assert field.get("value") in field.get("enum", [field.get("value")])


def test_each_namespace_of_jobs_has_its_own() -> None:
    names = {
        (o["metadata"]["namespace"], o["metadata"]["name"])
        for o in objects(stack())
        if o["kind"] == "WorkflowTemplate"
    }
    assert names == {
        (space, name)
        for space in ("team-a", "team-b")
        for name in (
            *("fine-tune", "fine-tune-sweep", "finetune-pipeline"),
            *("curate", "evaluate", "approve", "promote", "infer"),
        )
    }


def test_a_registry_in_s3_has_no_form_that_moves_a_name() -> None:
    tuning = {
        "runtimes": [{"name": "hf"}],
        "namespaces": [{"name": "team-a"}],
        "registryS3": {"bucket": "adapters"},
    }
    found = {
        o["metadata"]["name"] for o in objects(stack(fineTuning=tuning)) if o["kind"] == "WorkflowTemplate"
    }
    assert found == {"fine-tune", "fine-tune-sweep", "curate", "evaluate", "approve", "infer"}
    assert "promote" not in str(template(stack(fineTuning=tuning), "fine-tune-sweep"))


def test_forms_that_promote_leave_out_runtimes_whose_names_do_not_move() -> None:
    files = build(ROOT / "environments/lab.yaml", ROOT).files
    made = [o for f in files if f.component == "workflow-templates" for o in f.objects]
    choices = {
        form["metadata"]["name"]: {
            each["name"]: each["enum"]
            for each in form["spec"]["arguments"]["parameters"]
            if each["name"] in ("runtime", "method")
        }
        for form in made
        if form["metadata"]["name"] in ("fine-tune", "fine-tune-sweep", "finetune-pipeline")
        if form["kind"] == "WorkflowTemplate"
    }
    methods = ["lora", "sft", "dpo", "ia3", "pTuning"]
    promoted = {"runtime": ["hf"], "method": methods}
    everything = {"runtime": ["hf", "hf-nim", "nemo-customizer"], "method": methods}
    assert choices == {"fine-tune": everything, "fine-tune-sweep": promoted, "finetune-pipeline": promoted}


def test_a_form_offers_the_methods_of_its_runtimes_alone() -> None:
    offer = Offer("n", ("hf",), ("lora",), "image", elsewhere={"service": ("pTuning", "lora")})
    assert offer.choices(promoted=True) == (("hf",), ("lora",))
    assert offer.choices(promoted=False) == (("hf", "service"), ("lora", "pTuning"))
    nothing = replace(offer, runtimes=(), methods=())
    names = {each["metadata"]["name"] for each in build_templates(nothing)}
    assert names == {"fine-tune", "fine-tune-sweep", "curate", "evaluate", "approve", "infer"}


def test_pods_run_the_runtimes_image_from_the_mirror_with_its_secret() -> None:
    image = template(stack(), "curate")["spec"]["templates"][0]["container"]["image"]
    assert image == stack().environment.registries.trainer_image
    own = {
        "runtimes": [{"name": "hf", "image": "registry.example.com/own:1"}],
        "namespaces": [{"name": "team-a"}],
    }
    other = stack(
        fineTuning=own,
        registries={"mirror": "mirror.example.com"},
        secrets={"imagePull": "pull"},
    )
    spec = template(other, "curate")["spec"]
    assert spec["templates"][0]["container"]["image"] == "registry.example.com/own:1"
    assert spec["imagePullSecrets"] == [{"name": "pull"}]


def test_what_is_waited_for_are_the_states_that_a_job_ends_in() -> None:
    train = template(stack())["spec"]["templates"][1]
    assert train["resource"]["successCondition"] == f"status.state in ({State.SUCCEEDED}, {State.FAILED})"


def test_pods_may_make_jobs_and_report_and_nothing_else() -> None:
    role = next(o for o in objects(stack()) if o["kind"] == "Role")
    rights = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert rights == {
        *(("tuneyard.io", "finetunejobs", verb) for verb in ("create", "get", "patch")),
        *(("argoproj.io", "workflowtaskresults", verb) for verb in ("create", "patch")),
    }
    binding = next(o for o in objects(stack()) if o["kind"] == "RoleBinding")
    assert binding["subjects"][0]["name"] == template(stack())["spec"]["serviceAccountName"]


def test_a_manifest_is_yaml_with_a_word_in_place_of_each_tag() -> None:
    manifest = re.sub(r"\{\{.+?\}\}", "word", build_manifest())  # as Argo validates a template
    document = load(manifest).value
    assert document["spec"].keys() == {
        *("model", "dataset", "method", "runtime", "training", "parallelism"),
        *("evaluation", "publish", "serve"),
    }


def test_every_value_gets_into_the_manifest_by_way_of_json() -> None:
    train = template(stack())["spec"]["templates"][1]
    given = {entry["name"] for entry in train["inputs"]["parameters"]}
    manifest = build_manifest()
    assert train["resource"]["manifest"] == manifest
    tags = re.findall(r"\{\{(.*?)\}\}", manifest)
    tags.remove("workflow.name")  # a name that Kubernetes has taken
    assert {re.match(r"=let v = inputs\.parameters\.(\w+); ", tag)[1] for tag in tags} == given  # type: ignore[index]
    gate = [tag for tag in tags if "toJson(" not in tag]
    assert [tag.partition(";")[0] for tag in gate] == ["=let v = inputs.parameters.gate"]
    assert "+ v" not in gate[0]
    assert "inputs" not in re.sub(r"\{\{=let v = inputs\.parameters\.\w+; ", "", manifest)


def test_the_templates_fit_argo_s_crds(tmp_path: Path) -> None:
    crds = sorted(part_files("argo-expressions").rglob("argoproj.io_workflowtemplates.yaml"))
    if not crds:
        pytest.skip("Argo Workflows' CRDs are not here; `tuneyard-local build argo-expressions` brings them")
    add(crds, tmp_path)
    for name in ("airgapped", "lab"):
        files = [
            f
            for f in build(ROOT / f"environments/{name}.yaml", ROOT).files
            if f.component == "workflow-templates"
        ]
        assert {o["kind"] for f in files for o in f.objects} >= {"WorkflowTemplate", "Role"}
        assert [str(finding) for finding in check(files, tmp_path)] == []
        wrong = next(f for f in files if f.objects[0]["kind"] == "WorkflowTemplate")
        wrong.objects[0]["spec"]["templates"][0]["step"] = []
        assert [finding.rule for finding in check([wrong], tmp_path)] == ["fits-schema"]
