# SPDX-License-Identifier: Apache-2.0
"""The whole chain on a tiny model: prepare, train, evaluate, publish."""

import json

import pytest
from tuneyard_api.pod_contract import PrepareFacts, PublishFacts, TrainFacts

pytestmark = pytest.mark.torch


def test_chain_ends_with_an_adapter_in_the_registry(tmp_path, tiny_llama, job_of, pods, training_data):
    job = job_of(tiny_llama, training_data(40), training={"maxSteps": 6})
    code, result = pods.run("prepare", job)
    assert code == 0, result
    prepared = PrepareFacts.model_validate(result.facts)
    assert prepared.train_records == 30
    code, result = pods.run("train", job)
    assert code == 0, result
    trained = TrainFacts.model_validate(result.facts)
    assert trained.steps == 6
    assert trained.evaluation.tuned.loss < trained.evaluation.base.loss
    code, result = pods.run("publish", job)
    assert code == 0, result
    published = PublishFacts.model_validate(result.facts)
    folder = tmp_path / "registry" / "demo-adapter"
    assert published.path == str(folder)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        ".published-by",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "loss.png",
        "metrics.jsonl",
        "prepare-report.json",
        "report.html",
        "report.md",
        "samples.jsonl",
        "version.json",
    ]
    assert published.digest in (folder / "README.md").read_text()
    samples = [
        json.loads(line) for line in (pods.workspace / "evaluation/samples.jsonl").read_text().splitlines()
    ]
    assert len(samples) == 4
