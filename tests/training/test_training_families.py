# SPDX-License-Identifier: Apache-2.0
"""What the stage prepare says of a model's family: whether records may share a sequence, and whether it can be trained."""

import json

import pytest
from tuneyard_api.pod_contract import EXIT_CODES, FailureClass, PrepareFacts

GOOD = [{"prompt": f"say number {n} =", "completion": f" {n % 7}"} for n in range(20)]


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "lfm2", "num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
        {"model_type": "falcon_h1"},
        {"model_type": "mamba2"},
        {"model_type": "qwen3_next"},
        {"model_type": "jamba"},
        {"model_type": "recurrent_gemma"},
    ],
    ids=lambda config: config["model_type"],
)
def test_a_model_that_carries_a_state_is_not_packed(write_model, jsonl, job_of, pods, config):
    folder = write_model()
    (folder / "config.json").write_text(json.dumps({"vocab_size": 320} | config))
    job = job_of(folder, jsonl(GOOD), runtime={"modelFamilies": []})
    facts = PrepareFacts.model_validate(pods.run("prepare", job)[1].facts)
    assert facts.train_sequences == facts.train_records
    assert f"layers of {config['model_type']} carry a state from token to token" in facts.warnings[0]


def test_a_family_that_can_not_be_trained_is_known_without_a_gpu(write_model, jsonl, job_of, pods):
    folder = write_model()
    known = {"nope": "Transformers does not recognize", "clip": "no causal language model"}
    for model_type, message in known.items():
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        code, result = pods.run("prepare", job_of(folder, jsonl(GOOD), runtime={"modelFamilies": []}))
        assert code == EXIT_CODES[FailureClass.BAD_INPUT]
        assert message in result.failure.message
