# SPDX-License-Identifier: Apache-2.0
"""Layers that get an adapter: those that PEFT can put one on, and no other part of the same name."""

import pytest
from tuneyard_trainer.pod.failures import StageFailure

torch = pytest.importorskip("torch")

from peft import LoraConfig, get_peft_model  # noqa: E402
from support.tiny_families import tiny_config  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from tuneyard_trainer.model.adapted_layers import ends_with, target_modules  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]

LAYERS = {
    "ctrl": (["Wk", "Wq", "Wv", "dense", "ffn.0", "ffn.2"], "blocks of a list have the names 0 and 1 too"),
    "llama4_text": (
        ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
        "a router is a linear layer with two results",
    ),
    "phimoe": (["k_proj", "o_proj", "q_proj", "v_proj"], "a router as well"),
    "mamba2": (["in_proj"], "PEFT refuses out_proj of Mamba"),
    "falcon": (
        ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"],
        "a class of its own that computes as a linear layer does",
    ),
    "gpt2": (["c_attn", "c_fc", "c_proj"], "Conv1D"),
}


def on_meta(family):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(tiny_config(family))


@pytest.mark.parametrize("family", LAYERS, ids=lambda family: f"{family}: {LAYERS[family][1]}")
def test_peft_takes_every_layer_that_is_named(job_of, tmp_path, family):
    model = on_meta(family)
    named = target_modules(model, job_of(tmp_path, tmp_path))
    assert named == LAYERS[family][0]
    adapted = get_peft_model(model, LoraConfig(target_modules=named))
    places = [name.removesuffix(".lora_A") for name, _ in adapted.named_modules() if name.endswith(".lora_A")]
    assert places
    assert all(ends_with(place, named) for place in places)


def test_a_layer_that_peft_refuses_is_refused_with_those_that_it_takes(job_of, tmp_path):
    job = job_of(tmp_path, tmp_path, lora={"targetModules": ["out_proj"]})
    with pytest.raises(StageFailure, match="take an adapter and are named out_proj; try in_proj"):
        target_modules(on_meta("mamba2"), job)
