# SPDX-License-Identifier: Apache-2.0
"""What is made from the models: it is committed as it is, structural, bounded, and explains itself."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field
from tuneyard_api import generate, names, reasons, samples
from tuneyard_api.admission import build_policy
from tuneyard_api.crd import Schema, build_job_crd, build_runtime_crd, structural_schema
from tuneyard_api.job import FineTuneJob
from tuneyard_api.pod_contract import FailureClass
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.status import ProgressStatus
from tuneyard_api.yaml_io import load, load_all

ROOT = Path(__file__).parents[2]
CRDS = (build_job_crd(), build_runtime_crd())


def schema_of(crd: dict[str, Any]) -> Schema:
    schema: Schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}.{key}")


def test_what_is_committed_is_what_the_models_say() -> None:
    assert generate.difference(ROOT) == "", "try: python -m tuneyard_api.generate"


def test_generating_writes_every_file_and_check_shows_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main(["--check", "--root", str(tmp_path)]) == 1
    assert generate.main(["--root", str(tmp_path)]) == 0
    assert generate.main(["--check", "--root", str(tmp_path)]) == 0
    written = tmp_path / "docs/reference/reasons.md"
    written.write_text(written.read_text().replace("# Reasons", "# Excuses"))
    capsys.readouterr()
    assert generate.main(["--check", "--root", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "--- a/docs/reference/reasons.md" in shown.out
    assert "-# Excuses\n+# Reasons\n" in shown.out
    assert "python -m tuneyard_api.generate" in shown.err


@pytest.mark.parametrize("crd", CRDS, ids=lambda crd: crd["spec"]["names"]["kind"])
def test_a_crd_holds_structural_keywords_alone(crd: dict[str, Any]) -> None:
    text = json.dumps(schema_of(crd))
    for keyword in (
        "$ref",
        "$defs",
        "anyOf",
        '"const"',
        "prefixItems",
        '"title"',
        "readOnly",
        "discriminator",
    ):
        assert keyword not in text
    for path, node in nodes(schema_of(crd)):
        assert "type" in node, path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert all(
            isinstance(node.get(key, True), bool) for key in ("exclusiveMinimum", "exclusiveMaximum")
        ), path
        assert node.get("default", 0) is not None, path


@pytest.mark.parametrize("crd", CRDS, ids=lambda crd: crd["spec"]["names"]["kind"])
def test_every_field_of_a_spec_is_bounded_and_explained(crd: dict[str, Any]) -> None:
    for path, node in nodes(schema_of(crd)["properties"]["spec"]):
        match node["type"]:
            case "string":
                assert "maxLength" in node or "enum" in node, path
            case "array":
                assert "maxItems" in node, path
            case "integer" | "number":
                assert {"minimum", "maximum"} <= node.keys(), path
            case "object" if "additionalProperties" in node:
                assert "maxProperties" in node, path
        if not path.endswith((".items", ".additionalProperties")):
            assert node.get("description"), path


def test_status_has_no_defaults() -> None:
    assert all("default" not in node for _, node in nodes(schema_of(CRDS[0])["properties"]["status"]))


def test_names_columns_and_subresource() -> None:
    spec = CRDS[0]["spec"]
    assert spec["names"]["shortNames"] == ["ftj"]
    assert spec["versions"][0]["subresources"] == {"status": {}}
    shown = [
        column["name"]
        for column in spec["versions"][0]["additionalPrinterColumns"]
        if "priority" not in column
    ]
    assert shown == ["State", "Progress", "Loss", "Tok/s", "ETA", "Waiting", "Adapter", "Age"]
    asked_for = {"Method", "Runtime", "Age"}
    for column in spec["versions"][0]["additionalPrinterColumns"]:
        what_is = column["jsonPath"].startswith(".status.")
        assert what_is != (column["name"] in asked_for), "what was asked for is not always what is"
    paths = {path.replace(".items", "") for path, _ in nodes(schema_of(CRDS[0]))} | {
        ".metadata.creationTimestamp"
    }
    for crd in CRDS:
        known = paths | {path for path, _ in nodes(schema_of(crd))}
        assert {
            column["jsonPath"] for column in crd["spec"]["versions"][0]["additionalPrinterColumns"]
        } <= known
    assert (CRDS[1]["spec"]["scope"], CRDS[1]["spec"]["names"]["shortNames"]) == ("Cluster", ["ftr"])


def test_progress_is_written_with_the_text_of_its_column() -> None:
    progress = ProgressStatus(step=120, of=285, percent=42)
    assert progress.model_dump(exclude_none=True)["text"] == "120/285 (42%)"
    assert ProgressStatus.model_validate(progress.model_dump()) == progress
    assert progress.model_copy(update={"phase": "evaluating"}).text == "evaluating 120/285 (42%)"


class Odd(BaseModel):
    """Every shape that pydantic says in a way an API server does not take."""

    above: Annotated[float, Field(gt=0, lt=9)]
    maybe: int | None = None
    numbers: tuple[int, ...] = (1,)
    labels: dict[str, int] = Field(default_factory=dict)


def test_the_rewrites_to_a_structural_schema() -> None:
    assert structural_schema(Odd)["properties"] == {
        "above": {
            "type": "number",
            "minimum": 0,
            "exclusiveMinimum": True,
            "maximum": 9,
            "exclusiveMaximum": True,
        },
        "maybe": {"type": "integer"},
        "numbers": {"type": "array", "items": {"type": "integer"}, "default": [1]},
        "labels": {"type": "object", "additionalProperties": {"type": "integer"}},
    }


class Unclear(BaseModel):
    """A field of two types."""

    either: int | str


class Lost(BaseModel):
    """A null that would not survive."""

    nullable: str | None = "x"


def test_null_that_kubectl_would_lose_is_refused() -> None:
    with pytest.raises(TypeError, match="lost by `kubectl apply`"):
        structural_schema(Lost)


def test_a_field_of_two_types_is_refused() -> None:
    with pytest.raises(TypeError, match="one type"):
        structural_schema(Unclear)


def test_the_samples_name_every_field_and_are_valid() -> None:
    for sample, crd, model in (
        (samples.JOB, CRDS[0], FineTuneJob),
        (samples.RUNTIME, CRDS[1], FineTuneRuntime),
    ):
        text = samples.write_sample(sample, schema_of(crd), "h")
        assert load(text).value == sample
        model.model_validate(sample)
        for path, _ in nodes(schema_of(crd)["properties"]["spec"]):
            if path and not path.endswith((".items", ".additionalProperties")) and ".items." not in path:
                assert f"{path.rpartition('.')[2]}:" in text, path


def test_every_reason_is_a_word_with_a_sentence_and_on_the_page() -> None:
    page = (ROOT / "docs/reference/reasons.md").read_text()
    for name, meaning in reasons.REASONS.items():
        assert name.isalpha()
        assert name[0].isupper()
        assert meaning.sentence.endswith(".")
        assert f"`{name}` | {meaning.sentence}" in page
    assert {kind.value for kind in FailureClass} <= reasons.REASONS.keys()
    constants = [value for key, value in vars(reasons).items() if key.isupper() and isinstance(value, str)]
    assert len(constants) == len(set(constants))
    assert set(constants) <= reasons.REASONS.keys()
    assert reasons.UNSCHEDULABLE in reasons.WAITING
    assert reasons.TRAINING not in reasons.WAITING


def test_the_policy_speaks_of_the_runtime_that_the_job_names_alone() -> None:
    policy = build_policy()["spec"]
    assert policy["paramKind"] == {"apiVersion": names.API_VERSION, "kind": names.RUNTIME_KIND}
    for validation in policy["validations"]:
        assert validation["expression"].startswith("object.spec.runtime.name != params.metadata.name || ")
    files = load_all((ROOT / "manifests/crds/admission.yaml").read_text())
    assert [document.value["kind"] for document in files] == [
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ] * 2
