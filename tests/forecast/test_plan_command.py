# SPDX-License-Identifier: Apache-2.0
"""`tuneyard plan` as people call it: where it reads the model, what it says, how it exits."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.hub import Hub, running_hub
from tuneyard.main import cli
from tuneyard.views.plan import duration

ROOT = Path(__file__).parents[2]
TINY = ROOT / "examples" / "models" / "tiny-llama"
README_JOB = ROOT / "examples" / "smollm2-lora.yaml"
SCREEN = (30, 110)
"""Lines and columns."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


def job(tmp_path: Path, repo: str = "meta-llama/Llama-3.1-8B-Instruct", **spec: Any) -> str:
    model = {"huggingFace": {"repo": repo}, **spec.pop("model", {})}
    training = {"maxSteps": 500, "maxSequenceLength": 4096, "globalBatchSize": 16} | spec.pop("training", {})
    content = {
        "apiVersion": "tuneyard.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "answers"},
        "spec": {
            "model": model,
            "dataset": {"training": {"pvc": {"claimName": "data", "path": "train.jsonl"}}},
            "method": "lora",
            "runtime": {"name": "hf"},
            "training": training,
            **spec,
        },
    }
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(content))
    return str(path)


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["plan", *arguments])


def as_json(*arguments: str) -> dict[str, Any]:
    result = plan(*arguments, "-o", "json")
    assert result.stdout, result.stderr
    return json.loads(result.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("called", "spec", "says"),
    [
        ("8B LoRA", {"scheduling": {"gpuProduct": "NVIDIA-H200"}}, "fits "),
        (
            "8B QLoRA",
            {"model": {"quantization": "nf4"}, "scheduling": {"gpuProduct": "NVIDIA-L4"}},
            "weights, nf4",
        ),
        (
            "70B LoRA",
            {"repo": "meta-llama/Llama-3.3-70B-Instruct", "scheduling": {"gpuProduct": "NVIDIA-L40S"}},
            "does not fit",
        ),
        ("70B LoRA anywhere", {"repo": "meta-llama/Llama-3.3-70B-Instruct"}, "does not fit"),
        ("8B LoRA anywhere", {}, "GPU hours"),
    ],
)
def test_a_person_sees_what_decides_in_one_screen(
    tmp_path: Path, hub: Hub, called: str, spec: dict[str, Any], says: str
) -> None:
    """The hub has none of them, so the table of known models serves, and that is said."""
    result = plan(job(tmp_path, **spec), "--price", "2.5")
    lines = result.stdout.splitlines()
    assert says in result.stdout, called
    assert "the table of known models, as" in result.stdout
    assert len(lines) <= SCREEN[0], result.stdout
    assert max(map(len, lines[2:])) <= SCREEN[1]
    assert result.exit_code == int("does not fit" in says)


def test_the_job_of_the_readme_needs_no_gpu() -> None:
    result = plan(str(README_JOB))
    assert result.exit_code == 0
    assert "on CPU, runtime hf-cpu" in result.stdout
    assert "28 steps" in result.stdout
    assert len(result.stdout.splitlines()) <= SCREEN[0]


def test_the_shape_comes_from_the_headers_on_the_hub(tmp_path: Path, hub: Hub) -> None:
    hub.repositories["models", "me/own"] = {path.name: path.read_bytes() for path in TINY.iterdir()}
    found = as_json(job(tmp_path, "me/own", training={"maxSequenceLength": 1024}))
    assert found["model"]["parameters"] == 3_246_528
    assert "the header of 1 file" in found["model"]["shapeFrom"]
    assert hub.address in found["model"]["shapeFrom"]


def test_shards_are_read_by_their_index(tmp_path: Path, hub: Hub) -> None:
    files = {path.name: path.read_bytes() for path in TINY.iterdir()}
    weights = files.pop("model.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors"}}
    files |= {"model-1.safetensors": weights, "model.safetensors.index.json": json.dumps(index).encode()}
    hub.repositories["models", "me/shards"] = files
    assert as_json(job(tmp_path, "me/shards"))["model"]["parameters"] == 3_246_528


def test_only_the_beginning_of_a_file_of_weights_is_asked_for(tmp_path: Path, hub: Hub) -> None:
    hub.repositories["models", "me/own"] = {path.name: path.read_bytes() for path in TINY.iterdir()}
    as_json(job(tmp_path, "me/own"))
    assert [ranged for name, ranged in hub.ranges if name.endswith(".safetensors")]


def test_a_model_that_nobody_knows_is_refused_with_what_to_try(tmp_path: Path, hub: Hub) -> None:
    result = plan(job(tmp_path, "me/unknown"))
    assert result.exit_code == 1
    assert "me/unknown is not in the table of known models; try --model FOLDER" in result.stderr


def test_a_gated_model_asks_for_a_token(tmp_path: Path, hub: Hub) -> None:
    hub.repositories["models", "gated/own"] = {"config.json": b"{}"}
    assert "needs HF_TOKEN" in plan(job(tmp_path, "gated/own")).stderr


def test_a_folder_comes_before_the_hub(tmp_path: Path, hub: Hub) -> None:
    found = as_json(job(tmp_path), "--model", str(TINY))
    assert found["model"]["parameters"] == 3_246_528
    assert hub.requests == []


def test_a_configuration_alone_is_enough(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(TINY / "config.json", folder)
    assert as_json(job(tmp_path), "--model", str(folder))["model"]["parameters"] == 3_246_528


def test_data_of_a_claim_is_counted_as_the_prepare_stage_would(tmp_path: Path) -> None:
    """Records of 20 and more tokens, packed into sequences of 64."""
    claims = tmp_path / "claims"
    claims.mkdir()
    rows = [{"prompt": f"What is {number}?", "completion": "a number"} for number in range(100)]
    (claims / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = job(
        tmp_path, training={"maxSteps": None, "epochs": 2, "maxSequenceLength": 64, "globalBatchSize": 4}
    )
    content = json.loads(Path(written).read_text())
    del content["spec"]["training"]["maxSteps"]
    Path(written).write_text(json.dumps(content))
    found = as_json(written, "--model", str(TINY), "--claim", f"data={claims}")
    first = found["plans"][0]
    assert 10 < found["sequences"] < 95
    assert first["steps"] == -(-2 * found["sequences"] // 4)
    assert first["sequenceLength"] == 64


def test_without_data_steps_of_epochs_are_not_guessed(tmp_path: Path, hub: Hub) -> None:
    written = job(tmp_path, scheduling={"gpuProduct": "NVIDIA-H200"})
    content = json.loads(Path(written).read_text())
    del content["spec"]["training"]["maxSteps"]
    Path(written).write_text(json.dumps(content))
    assert "how many steps is not known: try --sequences" in plan(written).stdout
    assert as_json(written, "--sequences", "1600")["plans"][0]["steps"] == 100


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with an environment of two GPU products, one of them with a price."""
    for folder in ("charts/tuneyard-operator", "manifests/crds", "environments"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    lab = tmp_path / "environments" / "lab.yaml"
    text = lab.read_text().replace(
        "  - {product: NVIDIA-A100-SXM4-80GB, gpusPerNode: 4, memoryGiB: 80}",
        "  - {product: NVIDIA-A100-SXM4-80GB, gpusPerNode: 4, memoryGiB: 80, pricePerHour: 2}\n"
        "  - {product: NVIDIA-L4, gpusPerNode: 4, memoryGiB: 24}\n"
        "  currency: EUR",
    )
    lab.write_text(text)
    return tmp_path


def test_an_environment_gives_runtime_gpus_and_prices(root: Path, hub: Hub) -> None:
    found = as_json(job(root), "--environment", "lab", "--root", str(root))
    large, small = found["plans"]
    assert large["gpu"] == {"product": "NVIDIA-A100-SXM4-80GB", "memoryGiB": 80.0}
    assert large["cost"] == {"amount": pytest.approx(2 * large["gpuHours"], abs=0.01), "currency": "EUR"}
    assert small["gpu"] == {"product": "NVIDIA-L4", "memoryGiB": 24.0}
    assert small["cost"] is None
    assert small["gradientCheckpointing"]


def test_a_runtime_that_the_environment_lacks_is_refused_where_it_stands(root: Path) -> None:
    result = plan(job(root, runtime={"name": "other"}), "--environment", "lab", "--root", str(root))
    assert result.exit_code == 1
    assert "job.yaml:1:" in result.stderr
    assert "the environment has hf" in result.stderr


def test_an_unknown_product_is_said_and_not_refused(tmp_path: Path, hub: Hub) -> None:
    result = plan(job(tmp_path), "--gpu", "Example-GPU")
    assert result.exit_code == 0
    assert "the memory of Example-GPU is not known, so nothing is refused because of it" in result.stdout


def test_the_page_shows_what_the_command_prints(tmp_path: Path, hub: Hub) -> None:
    page = (ROOT / "docs/how-to/plan-a-job.md").read_text()
    shown = page.split("$ tuneyard plan job.yaml --price 2.5\n")[1].partition("```")[0]
    written = json.loads(Path(job(tmp_path, scheduling={"gpuProduct": "NVIDIA-H100-80GB-HBM3"})).read_text())
    written["metadata"]["name"] = "lora-8b"
    (tmp_path / "job.yaml").write_text(json.dumps(written))
    printed = plan(str(tmp_path / "job.yaml"), "--price", "2.5").stdout.splitlines()
    assert [printed[0], *printed[2:]] == [line for at, line in enumerate(shown.splitlines()) if at != 1]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (59, "59 s"), (60, "1 min"), (3725, "1 h 2 min"), (90_000, "1 d 1 h")],
)
def test_durations_have_two_parts(seconds: float, said: str) -> None:
    assert duration(seconds) == said
