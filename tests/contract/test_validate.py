# SPDX-License-Identifier: Apache-2.0
"""Files of jobs and runtimes: every invalid one is answered with the words that it states, valid ones are read."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tuneyard_api import job_rules, validate
from tuneyard_api.crd import Schema, structural_schema
from tuneyard_api.job import FineTuneJob
from tuneyard_api.planner import PlanRefused, make_plan
from tuneyard_api.problems import InputRefused
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.validate import load_job, load_runtime, locate
from tuneyard_api.yaml_io import load

ROOT = Path(__file__).parents[2]
INVALID = sorted((ROOT / "tests/invalid/jobs").glob("*.yaml"))
INVALID_RUNTIMES = sorted((ROOT / "tests/invalid/runtimes").glob("*.yaml"))

RUNTIME = """
apiVersion: tuneyard.io/v1alpha1
kind: FineTuneRuntime
metadata: {name: hf}
spec:
  image: trainer:1
  accelerator: nvidia
  methods: [lora]
"""
JOB = """
apiVersion: tuneyard.io/v1alpha1
kind: FineTuneJob
metadata: {name: answers}
spec:
  model: {pvc: {claimName: "no"}}
  dataset:
    training: {huggingFace: {repo: a/b, path: train.jsonl}}
  method: lora
  training: {learningRate: 2e-4, maxSteps: 0o17}
"""


def expected(path: Path, side: str) -> list[str]:
    marker = f"# expect-{side}: "
    return [line.removeprefix(marker) for line in path.read_text().splitlines() if line.startswith(marker)]


def refusals(text: str, file: str) -> list[str]:
    with pytest.raises(InputRefused) as refused:
        load_job(text, file)
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_job_is_refused_with_the_words_that_it_states(path: Path) -> None:
    wanted = expected(path, "local")
    assert wanted, f"{path} states no expectation"
    found = refusals(path.read_text(), path.name)
    assert found == [f"{path.name}:{problem}" for problem in wanted]


def patterns_of(schema: Schema) -> Iterator[str]:
    """Every pattern of a schema."""
    yield from filter(None, [schema.get("pattern")])
    inner = (schema.get("items"), schema.get("additionalProperties"))
    for part in (*schema.get("properties", {}).values(), *filter(None, inner)):
        yield from patterns_of(part)


@pytest.mark.parametrize("model", [FineTuneJob, FineTuneRuntime])
def test_no_pattern_is_shown_to_a_person(model: type[FineTuneJob] | type[FineTuneRuntime]) -> None:
    patterns = set(patterns_of(structural_schema(model)))
    assert len(patterns) > 5
    assert patterns <= validate._PATTERNS.keys()


def expressions_of(schema: Schema) -> Iterator[str]:
    """Every CEL expression of a schema."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield from (rule["rule"], rule.get("messageExpression", ""))
    for part in (*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])):
        yield from expressions_of(part)


@pytest.mark.parametrize("model", [FineTuneJob, FineTuneRuntime])
def test_no_apostrophe_ends_a_string_of_cel_early(model: type[FineTuneJob] | type[FineTuneRuntime]) -> None:
    """An API server takes no CRD with such an expression; between strings stand only operators, names and numbers."""
    expressions = list(expressions_of(structural_schema(model)))
    assert len(expressions) > 5
    for expression in expressions:
        outside = " ".join(expression.split("'")[::2])
        assert expression.count("'") % 2 == 0, expression
        assert ";" not in outside, expression


def rules_of(schema: Schema) -> Iterator[str]:
    """The sentence of every rule of a schema; a file does not say what the object was before."""
    rules = schema.get("x-kubernetes-validations", ())
    yield from (rule["message"] for rule in rules if "oldSelf" not in rule["rule"])
    for part in (*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])):
        yield from rules_of(part)


def test_every_rule_is_broken_by_a_file_on_both_sides() -> None:
    stated = [(" ".join(expected(path, "local")), " ".join(expected(path, "api"))) for path in INVALID]
    rules = set(rules_of(structural_schema(FineTuneJob)))
    assert len(rules) > 15
    for rule in rules:
        sentence = rule.replace(job_rules.BATCH_DIVIDES.sentence, "x accumulation; try")
        assert any(sentence in local and sentence in api for local, api in stated), rule


def test_a_valid_job_is_read_with_its_numbers_and_words() -> None:
    spec = load_job(JOB, "job.yaml").spec
    assert (spec.training.learning_rate, spec.training.max_steps) == (0.0002, 15)
    assert spec.model.pvc is not None
    assert spec.model.pvc.claim_name == "no"


@pytest.mark.parametrize("name", ["sample-finetunejob.yaml", "docstrings-lora.yaml"])
def test_the_examples_are_read(name: str) -> None:
    path = ROOT / "examples" / name
    assert load_job(path.read_text(), name).spec.method == "lora"


def test_a_runtime_is_read_as_strictly() -> None:
    assert load_runtime(RUNTIME, "r.yaml").spec.methods == ("lora",)
    assert load_runtime((ROOT / "examples/sample-finetuneruntime.yaml").read_text()).metadata.name == "hf"
    with pytest.raises(InputRefused) as refused:
        load_runtime(RUNTIME.replace("[lora]", "[]").replace("nvidia", "Nvidia") + "  mount: []\n", "r.yaml")
    assert str(refused.value).splitlines() == [
        'r.yaml:7:3 spec.accelerator: not one of nvidia, none (got "Nvidia"); try nvidia',
        "r.yaml:8:3 spec.methods: too short (got 0 items); try at least 1 items",
        "r.yaml:9:3 spec.mount: unknown field; try mounts",
    ]


@pytest.mark.parametrize("path", INVALID_RUNTIMES, ids=lambda path: path.stem)
def test_an_invalid_runtime_is_refused_with_the_words_that_it_states(path: Path) -> None:
    with pytest.raises(InputRefused) as refused:
        load_runtime(path.read_text(), path.name)
    wanted = [f"{path.name}:{problem}" for problem in expected(path, "local")]
    assert [str(problem) for problem in refused.value.problems] == wanted


@pytest.mark.parametrize("cpu", ["1m", "0.001", "00.5", "0.0015", "2", "500m", "1.5m", "1.25", "1000"])
def test_a_millicore_is_enough(cpu: str) -> None:
    assert load_runtime(f"{RUNTIME}  trainResources: {{cpu: '{cpu}'}}\n").spec.train_resources.cpu == cpu


@pytest.mark.parametrize(
    "image", ["Trainer:1", "a b:1", "trainer :1", "reg/:1", "reg//a:1", "a/b/:1", "-a:1"]
)
def test_an_image_is_a_name_that_can_be_pulled(image: str) -> None:
    with pytest.raises(
        InputRefused, match=r"spec.image: not as it has to be written .* try a lower-case name"
    ):
        load_runtime(RUNTIME.replace("trainer:1", f'"{image}"'))


@pytest.mark.parametrize(
    ("image", "is_fixed"),
    [
        ("trainer:1", True),
        ("localhost:5000/a/trainer:1.2-cuda", True),
        ("ghcr.io/a/b@sha256:" + "0" * 64, True),
        ("ghcr.io/a/b:1@sha256:" + "0" * 64, True),
        ("trainer", False),
        ("localhost:5000/trainer", False),
        ("trainer:latest", False),
        ("ghcr.io/a/b@sha256:0", False),
    ],
)
def test_an_image_has_a_fixed_tag_or_a_digest(image: str, is_fixed: bool) -> None:
    text = RUNTIME.replace("trainer:1", image)
    if is_fixed:
        assert load_runtime(text).spec.image == image
    else:
        with pytest.raises(InputRefused, match="an image has a fixed tag or a digest"):
            load_runtime(text)


def test_a_refused_plan_gets_the_lines_of_the_file() -> None:
    document = load(JOB.replace("lora", "sft"), "job.yaml")
    job = load_job(JOB.replace("lora", "sft"), "job.yaml")
    with pytest.raises(PlanRefused) as refused:
        make_plan(job, load_runtime(RUNTIME))
    assert str(locate(refused.value, document)).splitlines() == [
        (
            "job.yaml:5:1 spec.publish: neither the job nor runtime hf says where adapters go; try publish.pvc.claimName"
            " with the claim of your adapter registry, publish.s3 or publish.dataStore"
        ),
        "job.yaml:9:3 spec.method: runtime hf has lora (got sft); try lora",
    ]


@pytest.mark.parametrize("text", ["", "[]", "a", "spec: 3", "kind: FineTuneJob"])
def test_what_is_no_job_at_all_is_refused_too(text: str) -> None:
    assert refusals(text, "f")


def test_a_runtime_asks_for_gpus_by_resource_or_by_device_class() -> None:
    claimed = load_runtime(RUNTIME + "  deviceClassName: gpu.nvidia.com\n", "runtime.yaml").spec
    assert (claimed.device_class_name, claimed.accelerator_resource) == ("gpu.nvidia.com", None)
    with pytest.raises(InputRefused, match="acceleratorResource and deviceClassName exclude each other"):
        load_runtime(RUNTIME + "  deviceClassName: gpu.nvidia.com\n  acceleratorResource: x.y/z\n", "r.yaml")
