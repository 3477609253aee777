# SPDX-License-Identifier: Apache-2.0
"""Files of jobs and runtimes: every invalid one is answered with the words that it states, valid ones are read."""

from pathlib import Path

import pytest
from tuneyard_api import job_rules
from tuneyard_api.base import Rule
from tuneyard_api.planner import PlanRefused, make_plan
from tuneyard_api.problems import InputRefused
from tuneyard_api.validate import load_job, load_runtime, locate
from tuneyard_api.yaml_io import load

ROOT = Path(__file__).parents[2]
INVALID = sorted((ROOT / "tests/invalid/jobs").glob("*.yaml"))

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
  model: {pvc: {claimName: no}}
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


def test_every_rule_is_broken_by_a_file_on_both_sides() -> None:
    stated = [(" ".join(expected(path, "local")), " ".join(expected(path, "api"))) for path in INVALID]
    words = {rule: rule.sentence for rule in vars(job_rules).values() if isinstance(rule, Rule)}
    words |= {job_rules.BATCH_DIVIDES: "x accumulation; try"}
    for of_runtimes in (
        job_rules.FIXED_IMAGE,
        job_rules.ONE_WAY_TO_ASK_FOR_GPUS,
        job_rules.CPU_LIMIT_IS_ENOUGH,
    ):
        words.pop(of_runtimes)
    assert len(words) > 10
    for rule, sentence in words.items():
        assert any(sentence in local and sentence in api for local, api in stated), rule.cel


def test_a_valid_job_is_read_with_numbers_and_strings_of_yaml_1_2() -> None:
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
            " with the claim of your adapter registry"
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
