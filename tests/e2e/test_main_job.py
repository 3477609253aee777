# SPDX-License-Identifier: Apache-2.0
"""The ten-line job of the demo on real pods: what status says is what the endpoint does."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from tuneyard_api import yaml_io
from tuneyard_local import installation
from tuneyard_local.demo import ask
from tuneyard_local.paths import REPOSITORY

JOB_FILE = REPOSITORY / "examples" / "docstrings-lora.yaml"
PROMPTS = 50

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


def test_from_ten_lines_to_an_adapter_that_answers_better(bench) -> None:
    document = yaml_io.load(JOB_FILE.read_text(), str(JOB_FILE)).value
    # A quarter of the steps, larger ones: enough for a gain that no chance explains, in a third of the time.
    document["spec"]["training"] |= {"maxSteps": 50, "learningRate": 0.003}
    document["spec"]["evaluation"] = {"maxPrompts": PROMPTS}
    bench.apply(document)
    name = document["metadata"]["name"]
    status = bench.wait_for_state(name, "Succeeded", 1200)

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
    limit = bench.get("finetunejobs", name)["spec"]["evaluation"]["maxNewTokens"]
    records = ask.first_records(Path(bench.parts.datasets) / "docstrings" / "test.jsonl", PROMPTS)
    scores: dict[str, list[float]] = {"base": [], "tuned": []}
    with ask.forwarded(
        bench.cluster.kubeconfig, bench.namespace, installation.SERVICE, installation.SERVICE_PORT
    ) as url:
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


def test_what_people_see_with_kubectl(bench) -> None:
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
