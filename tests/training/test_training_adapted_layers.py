# SPDX-License-Identifier: Apache-2.0
"""Layers that get an adapter: those that PEFT can put one on, and no other part of the same name."""

import pytest
from tuneyard_trainer.pod.failures import StageFailure

torch = pytest.importorskip("torch")

from peft import LoraConfig, get_peft_model  # noqa: E402
from support.family_matrix import tiny_model  # noqa: E402
from support.tiny_families import families, tiny_config  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from tuneyard_trainer.model.adapted_layers import (  # noqa: E402
    ends_with,
    is_linear,
    said_of_unreached,
    target_modules,
)

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
    "deepseek_v3": (
        ["kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "q_a_proj", "q_b_proj"],
        "PEFT takes the layers of its shared experts for the tensors of all experts",
    ),
    "beam": (["k_proj", "o_proj", "q_proj", "v_proj"], "PEFT takes its layers for those of experts"),
    "gpt2": (["c_attn", "c_fc", "c_proj"], "Conv1D"),
}


def on_meta(family):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(tiny_config(family))


def linear_of(model):
    return [(name, part) for name, part in model.named_modules() if is_linear(part)]


def places_of(adapted):
    names = (name for name, _ in adapted.named_modules() if name.endswith(".lora_A"))
    return {name.removeprefix("base_model.model.").removesuffix(".lora_A") for name in names}


@pytest.mark.parametrize("family", LAYERS, ids=lambda family: f"{family}: {LAYERS[family][1]}")
def test_peft_takes_every_layer_that_is_named(job_of, tmp_path, family):
    model = on_meta(family)
    named = target_modules(model, job_of(tmp_path, tmp_path))
    assert named == LAYERS[family][0]
    meant = {name for name, part in linear_of(model) if ends_with(name, named)}
    assert places_of(get_peft_model(model, LoraConfig(target_modules=named))) == meant != set()


@pytest.mark.long
def test_peft_adapts_the_layers_that_are_named_and_no_others_in_every_family(job_of, tmp_path):
    wrong = {}
    for family in families():
        try:
            model = on_meta(family)
        except (AttributeError, ImportError, ValueError):
            continue  # transformers can't build it
        named = target_modules(model, job_of(tmp_path, tmp_path))
        meant = {name for name, part in linear_of(model) if ends_with(name, named)}
        if (places := places_of(get_peft_model(model, LoraConfig(target_modules=named)))) != meant:
            wrong[family] = sorted(places ^ meant)
    assert wrong == {}


def test_a_layer_that_peft_takes_for_experts_is_said_to_have_no_adapter(job_of, tmp_path):
    model = on_meta("beam")
    said = said_of_unreached(model, target_modules(model, job_of(tmp_path, tmp_path)))
    assert "because PEFT takes no adapter for them: self_attn.gate_proj.weight, mlp." in said
    job = job_of(tmp_path, tmp_path, lora={"targetModules": ["q_proj", "gate_proj"]})
    with pytest.raises(StageFailure, match="take an adapter and are named gate_proj; try k_proj"):
        target_modules(model, job)


@pytest.mark.parametrize("family", ["gemma3", "fuyu", "got_ocr2", "moss_transcribe_diarize"])
def test_only_layers_that_text_goes_through_get_an_adapter(job_of, tmp_path, family):
    model = tiny_model(family)
    named = target_modules(model, job_of(tmp_path, tmp_path))
    assert said_of_unreached(model, named) is None
    linear = [n for n, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    adapted = get_peft_model(model, LoraConfig(target_modules=named))
    adapted(input_ids=torch.arange(2, 20)[None]).logits.sum().backward()
    factors = {name: p for name, p in adapted.named_parameters() if ".lora_B." in name}
    assert len(factors) == sum(".language_model." in name for name in linear) > 0
    assert [name for name, factor in factors.items() if factor.grad is None] == []


def test_a_layer_that_peft_refuses_is_refused_with_those_that_it_takes(job_of, tmp_path):
    job = job_of(tmp_path, tmp_path, lora={"targetModules": ["out_proj"]})
    with pytest.raises(StageFailure, match="take an adapter and are named out_proj; try in_proj"):
        target_modules(on_meta("mamba2"), job)
