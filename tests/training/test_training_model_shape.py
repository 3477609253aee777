# SPDX-License-Identifier: Apache-2.0
"""The sizes of a model that the prepare stage tells, from which the operator plans the training."""

import json
from pathlib import Path

from tuneyard_api.pod_contract import PrepareFacts
from tuneyard_trainer.model.weights import shape_in
from tuneyard_trainer.workspace.prepared import Split

TINY = Path(__file__).parents[2] / "examples" / "models" / "tiny-llama"
RECORDS = [{"prompt": f"say number {n} =", "completion": f" {n % 7}"} for n in range(20)]


def test_the_sizes_of_the_model_are_told_from_the_headers_of_its_weights(jsonl, job_of, pods):
    facts = PrepareFacts.model_validate(pods.run("prepare", job_of(TINY, jsonl(RECORDS)))[1].facts)
    config = json.loads((TINY / "config.json").read_text())
    assert facts.model is not None
    assert (facts.model.hidden, facts.model.layers) == (config["hidden_size"], config["num_hidden_layers"])
    assert facts.model.parameters == 3_246_528
    training = Split.load(pods.workspace / "prepared/training.safetensors")
    assert facts.longest_sequence == training.tokens_per_sequence().max()


def test_where_the_files_do_not_tell_the_sizes_none_are_told(model_files):
    assert shape_in(model_files, {"model_type": "llama"}) is None
