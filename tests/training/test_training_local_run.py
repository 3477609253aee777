# SPDX-License-Identifier: Apache-2.0
"""`tuneyard-trainer run`: a job file, folders for claims, and the same stages as in a cluster."""

import pytest
from click.testing import CliRunner
from tuneyard_trainer.main import main

JOB = """\
apiVersion: tuneyard.io/v1alpha1
kind: FineTuneJob
metadata: {name: numbers}
spec:
  model: {pvc: {claimName: models, path: base}}
  dataset: {training: {pvc: {claimName: data, path: train.jsonl}}}
  method: lora
  training: {maxSteps: 2, learningRate: 2e-2, maxSequenceLength: 64}
  evaluation: {maxPrompts: 2, maxNewTokens: 4}
  runtime: {name: hf-cpu}
"""


@pytest.fixture
def run(tmp_path):
    def invoke(text, *options):
        (tmp_path / "job.yaml").write_text(text)
        arguments = ["run", str(tmp_path / "job.yaml"), "--workspace", str(tmp_path / "work"), *options]
        return CliRunner().invoke(main, arguments)

    return invoke


REFUSED = {
    "an unknown field": (JOB.replace("method", "metod"), "job.yaml:7:3 spec.metod: unknown field"),
    "a method that the runtime lacks": (
        JOB.replace("lora", "galore"),
        "spec.method: runtime hf-cpu has dpo, ia3, lora, pTuning, sft (got galore)",
    ),
    "a batch that does not divide": (
        JOB.replace("maxSteps: 2", "maxSteps: 2, globalBatchSize: 8, microBatchSize: 3"),
        "globalBatchSize 8 is not",
    ),
    "claims without folders": (
        JOB,
        "claim data: try --claim data=FOLDER\nclaim models: try --claim models=FOLDER",
    ),
    "several nodes on one machine": (
        JOB + "  parallelism: {nodes: 2}\n",
        "spec.parallelism.nodes: this machine is one node (got 2); try 1, and gpusPerNode",
    ),
    "a runtime that is not built in": (
        JOB.replace("hf-cpu", "ours"),
        "built in are hf and hf-cpu (got ours)",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_before_anything_runs(run, tmp_path, text, message):
    result = run(text)
    assert result.exit_code == 10
    assert message in result.stderr
    assert not (tmp_path / "work").exists()


def test_claim_without_a_folder_is_named(run):
    assert "--claim data=/nowhere: expected NAME=FOLDER" in run(JOB, "--claim", "data=/nowhere").stderr


def test_failing_stage_ends_the_run_with_its_code(run, tmp_path, model_files):
    (tmp_path / "data").mkdir()
    options = ["--claim", f"models={tmp_path}", "--claim", f"data={tmp_path / 'data'}"]
    assert run(JOB, *options).exit_code == 11


@pytest.mark.torch
def test_whole_job_runs(tmp_path, tiny_llama, training_data, run, capfd):
    training_data(24)
    job = JOB.replace("path: base", f"path: {tiny_llama.name}")
    options = [
        "--claim",
        f"models={tiny_llama.parent}",
        "--claim",
        f"data={tmp_path}",
        "--registry",
        str(tmp_path / "reg"),
    ]
    result = run(job, *options)
    assert result.exit_code == 0
    assert (tmp_path / "reg/numbers/adapter_model.safetensors").is_file()
    assert "ROUGE-L" in result.stdout
    assert "train: training" in capfd.readouterr().out
