# SPDX-License-Identifier: Apache-2.0
"""The ten-line job of the demo on real pods: what status says is what the endpoint does."""

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.bench import Bench
from tuneyard_api import yaml_io
from tuneyard_local import installation
from tuneyard_local.demo import ask
from tuneyard_local.paths import REPOSITORY
from tuneyard_local.progress import wait_until

JOB_FILE = REPOSITORY / "examples" / "docstrings-lora.yaml"
NAME = "docstrings"
PROMPTS = 30

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


def rouge_l(reference: str, answer: str) -> float:
    # Not at the top: the environment without PyTorch collects this file too.
    from rouge_score.rouge_scorer import RougeScorer

    return float(RougeScorer(["rougeL"]).score(reference, answer)["rougeL"].fmeasure)


def bootstrap_low(differences: Sequence[float], rounds: int = 4000) -> float:
    """Lower end of the 95 % percentile bootstrap interval of the mean (Efron 1979)."""
    rng, count = random.Random(7), len(differences)
    means = sorted(sum(rng.choices(differences, k=count)) / count for _ in range(rounds))
    return means[int(rounds * 0.025)]


@pytest.fixture(scope="module")
def status(bench: Bench) -> dict[str, Any]:
    """What the ten-line job says when it has succeeded."""
    document = yaml_io.load(JOB_FILE.read_text(), str(JOB_FILE)).value
    # A quarter of the steps, larger ones: enough for a gain that no chance explains, in a third of the time.
    document["spec"]["training"] |= {"maxSteps": 50, "learningRate": 0.003}
    document["spec"]["evaluation"] = {"maxPrompts": PROMPTS}
    bench.apply(document)
    return bench.wait_for_state(NAME, "Succeeded", 1200)


@contextmanager
def endpoint(bench: Bench) -> Iterator[str]:
    """The address of the server that has the adapters."""
    service, port = installation.SERVICE, installation.SERVICE_PORT
    with ask.forwarded(bench.cluster.kubeconfig, bench.namespace, service, port) as url:
        yield url


def test_from_ten_lines_to_an_adapter_that_answers_better(bench: Bench, status: dict[str, Any]) -> None:
    conditions = {each["type"]: each["status"] for each in status["conditions"]}
    assert conditions == dict.fromkeys(
        (
            "Accepted",
            "Planned",
            "DataReady",
            "Scheduled",
            "Trained",
            "Evaluated",
            "Published",
            "Served",
            "Succeeded",
        ),
        "True",
    )
    result = status["result"]
    adapter = bench.registry() / result["adapter"]["name"]
    assert {
        *("adapter_config.json", "adapter_model.safetensors", "report.html", "report.md"),
        *("metrics.jsonl", "samples.jsonl", "prepare-report.json"),
    } <= {path.name for path in adapter.iterdir()}
    measured = status["training"]
    assert measured["trainedTokens"] > 0
    assert measured["peakMemoryBytes"] > 1 << 20
    assert result["adapter"]["digest"].startswith("sha256:")
    assert result["modelName"] == result["adapter"]["name"]
    assert [attempt["stage"] for attempt in status["attempts"]] == ["prepare", "train", "publish"]

    metrics = result["metrics"]
    assert metrics["tuned"]["prompts"] == PROMPTS
    job = bench.get("finetunejobs", NAME)
    assert job
    limit = job["spec"]["evaluation"]["maxNewTokens"]
    records = ask.first_records(Path(bench.parts.datasets) / "docstrings" / "test.jsonl", PROMPTS)
    scores: dict[str, list[float]] = {"base": [], "tuned": []}
    with endpoint(bench) as url:
        assert {installation.BASE_MODEL, result["modelName"]} <= set(ask.models(url))
        for record in records:
            for side, model in (("base", installation.BASE_MODEL), ("tuned", result["modelName"])):
                answer = ask.completion(url, model, record["prompt"], limit)
                scores[side].append(rouge_l(record["completion"].strip(), answer))
    for side in ("base", "tuned"):
        served = sum(scores[side]) / len(scores[side])
        assert served == pytest.approx(metrics[side]["rougeL"], abs=0.01), side
    gains = [tuned - base for tuned, base in zip(scores["tuned"], scores["base"], strict=True)]
    assert bootstrap_low(gains) > 0


@pytest.mark.usefixtures("status")
def test_what_people_see_with_kubectl(bench: Bench) -> None:
    shown = bench.cluster.kubectl("-n", bench.namespace, "get", "ftj").stdout
    assert {"STATE", "PROGRESS", "LOSS", "ETA"} <= set(shown.splitlines()[0].split())
    pods = json.loads(
        bench.cluster.kubectl(
            "-n", bench.namespace, "get", "pods", "-l", "tuneyard.io/job", "-o", "json"
        ).stdout
    )
    for pod in pods["items"]:
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


@pytest.mark.usefixtures("status")
def test_a_job_that_is_deleted_leaves_its_adapter(bench: Bench) -> None:
    adapter = bench.registry() / NAME
    assert adapter.is_dir()
    bench.cluster.kubectl("-n", bench.namespace, "delete", "ftj", NAME, "--wait=false")
    wait_until(f"{NAME} to be gone", lambda: bench.get("finetunejobs", NAME) is None, 120)
    assert adapter.is_dir()
    with endpoint(bench) as url:
        assert NAME in ask.models(url)
