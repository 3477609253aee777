# SPDX-License-Identifier: Apache-2.0
"""What of a plan must be equal for its work to be taken up: prepared data, checkpoints, and neither more nor less."""

import shutil

import pytest
from tuneyard_api.planner import digest_of
from tuneyard_api.pod_contract import EXIT_CODES, FailureClass, PrepareFacts, TrainFacts
from tuneyard_trainer.pod.results import result_path
from tuneyard_trainer.workspace.metrics import read_metrics
from tuneyard_trainer.workspace.prepared import Index
from tuneyard_trainer.workspace.same_work import inputs_of, lineage_of

ADAPTER = {"path": "/sources/adapter", "mustMatchLora": False}
CHANGES: dict[str, tuple[dict, str]] = {
    "more nodes": ({"nodes": 2}, ""),
    "more GPUs": ({"gpusPerNode": 8}, ""),
    "another cut of the global batch": (
        {"training": {"microBatchSize": 1, "dataParallel": 2, "gradientAccumulation": 2}},
        "",
    ),
    "gradient checkpointing": ({"training": {"gradientCheckpointing": True}}, ""),
    "checkpoints more often": ({"checkpoint": {"everySteps": 1, "keep": 9}}, ""),
    "another name": ({"name": "b", "adapterName": "b", "registryPath": "/other"}, ""),
    "another way to publish": (
        {"replace": True, "registryS3": {"bucket": "b-1"}, "retention": {"keepVersions": 1, "keepDays": 1}},
        "",
    ),
    "another runtime": ({"runtime": {"name": "other"}}, ""),
    "patience": ({"training": {"earlyStopping": {"patience": 1}}}, ""),
    "what is asked of the model": ({"evaluation": {"maxPrompts": 2, "maxNewTokens": 3}}, "prepare"),
    "other test records": ({"dataset": {"test": {"path": "/sources/test/x"}}}, "prepare"),
    "families that the runtime allows": ({"runtime": {"modelFamilies": ["qwen2"]}}, "prepare"),
    "another learning rate": ({"training": {"learningRate": 0.02}}, "checkpoints"),
    "more steps": ({"training": {"maxSteps": 5}}, "checkpoints"),
    "another global batch": ({"training": {"globalBatchSize": 8}}, "checkpoints"),
    "all weights": ({"method": "sft"}, "checkpoints"),
    "another rank": ({"lora": {"rank": 8}}, "checkpoints"),
    "magnitudes": ({"lora": {"dora": True}}, "checkpoints"),
    "scales": ({"method": "ia3"}, "checkpoints"),
    "the weight of preferences": ({"dpo": {"beta": 0.5}}, "checkpoints"),
    "preferences": ({"method": "dpo", "dataset": {"format": "preference"}}, "prepare checkpoints"),
    "virtual tokens": ({"method": "pTuning", "pTuning": {"virtualTokens": 4}}, "prepare checkpoints"),
    "a quantised base": ({"quantization": "nf4"}, "checkpoints"),
    "another model": ({"model": {"path": "/sources/model/other"}}, "prepare checkpoints"),
    "another revision": ({"model": {"repo": "a/b", "revision": "1"}}, "prepare checkpoints"),
    "other records": ({"dataset": {"training": {"path": "/sources/training/x"}}}, "prepare checkpoints"),
    "another template": ({"dataset": {"lossOn": "all"}}, "prepare checkpoints"),
    "an adapter to go on from": ({"adapter": ADAPTER}, "prepare checkpoints"),
    "longer sequences": ({"training": {"maxSequenceLength": 32}}, "prepare checkpoints"),
    "no packing": ({"training": {"packing": False}}, "prepare checkpoints"),
    "another seed": ({"training": {"seed": 8}}, "prepare checkpoints"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_only_what_decides_on_the_work_makes_it_another(job_of, tmp_path, name):
    changes, needed = CHANGES[name]
    before, after = (job_of(tmp_path / "model", tmp_path / "data", **each) for each in ({}, changes))
    assert digest_of(before) != digest_of(after)
    assert (inputs_of(before) != inputs_of(after)) == ("prepare" in needed)
    assert (lineage_of(before) != lineage_of(after)) == ("checkpoints" in needed)


def test_options_of_lora_matter_to_prepare_where_an_adapter_must_match_them(job_of, tmp_path):
    before, after = (job_of(tmp_path, tmp_path, adapter=ADAPTER, lora=lora) for lora in ({}, {"rank": 8}))
    assert inputs_of(before) != inputs_of(after)


@pytest.fixture
def prepared(pods, job_of, model_files, training_data):
    """Prepares with these changes; the facts, and whether what is there was made for this very plan."""
    data = training_data(20)

    def run(**changes):
        job = job_of(model_files, data, **changes)
        code, result = pods.run("prepare", job)
        assert code == 0
        assert result.plan_digest == digest_of(job), "the operator takes no other plan's result"
        is_new = Index.load(pods.workspace).plan_digest == digest_of(job)
        return PrepareFacts.model_validate(result.facts), is_new

    return run


def test_on_another_number_of_processes_nothing_is_prepared_again(prepared):
    facts, _ = prepared()
    assert prepared(nodes=2, training={"dataParallel": 2, "gradientAccumulation": 1}) == (facts, False)
    assert prepared(training={"seed": 8})[1]
    assert prepared(nodes=2)[1], "what was prepared meanwhile is of another seed"


def test_a_result_and_the_work_of_another_plan_are_none(prepared, pods):
    prepared()
    kept = result_path(pods.workspace, "prepare").read_bytes()
    facts, _ = prepared(training={"seed": 8})
    # As if the second one had been killed before it could say so.
    result_path(pods.workspace, "prepare").write_bytes(kept)
    assert prepared(training={"seed": 8})[0] == facts
    shutil.rmtree(pods.workspace / "prepared")
    assert prepared(training={"seed": 8})[0] == facts


@pytest.mark.torch
def test_a_training_continues_with_another_micro_batch_without_preparing_again(
    pods, job_of, tiny_llama, training_data
):
    pytest.importorskip("torch")
    data = training_data(40)

    def train(**changes):
        code, result = pods.run("train", job_of(tiny_llama, data, **changes))
        lines = read_metrics(pods.workspace / "metrics.jsonl")
        return code, result, [line["loss"] for line in lines if "loss" in line]

    assert pods.run("prepare", job_of(tiny_llama, data))[0] == 0
    _, _, whole = train()
    shutil.rmtree(pods.workspace / "checkpoints/step-000000004")
    code, result, losses = train(training={"microBatchSize": 1, "gradientAccumulation": 4})
    assert code == 0, result.failure
    assert TrainFacts.model_validate(result.facts).resumed_from_step == 2
    assert losses == pytest.approx(whole, abs=1e-4)
    code, result, _ = train(training={"seed": 8})
    assert code == EXIT_CODES[FailureClass.BAD_INPUT]
    assert "other data or settings; run stage prepare again" in result.failure.message
