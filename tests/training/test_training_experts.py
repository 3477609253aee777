# SPDX-License-Identifier: Apache-2.0
"""Experts that are one tensor of three dimensions: trained where lora.targetModules names them, and read back by plain PEFT."""

import json
import re
from pathlib import Path

import pytest
from tuneyard_api.pod_contract import FailureClass

torch = pytest.importorskip("torch")

from peft import PeftModel  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from support.family_matrix import tiny_model  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from tuneyard_trainer.model.adapted_layers import target_modules, target_parameters  # noqa: E402
from tuneyard_trainer.model.module_tree_process import check_modules  # noqa: E402
from tuneyard_trainer.pod.failures import StageFailure  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]
EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]
RECORDS = [{"prompt": f"say number {n} =", "completion": f" {n % 7}"} for n in range(20)]


@pytest.fixture
def job_on(tmp_path, write_tokenizer, jsonl, job_of):
    """A job on the tiny model of a family, whose files are written."""

    def build(family, **changes):
        folder = tmp_path / family
        tiny_model(family).save_pretrained(folder)
        write_tokenizer(folder)
        lora = {"targetModules": ["q_proj", *EXPERTS]} | changes.pop("lora", {})
        return job_of(folder, jsonl(RECORDS), lora=lora, runtime={"modelFamilies": []}, **changes)

    return build


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_experts_that_are_named_are_trained_and_read_back_by_plain_peft(job_on, pods, family):
    job = job_on(family)
    code, result = pods.run("prepare", job)
    assert code == 0, result
    said = check_modules(job, Path(job.model.path))[0]
    assert ("if vLLM is to serve the adapter: lora.targetModules: vLLM" in said) == (family != "gpt_oss")
    assert family != "gpt_oss" or "of all experts get an adapter by PEFT's target_parameters" in said
    assert pods.run("train", job)[0] == 0
    code, result = pods.run("publish", job)
    assert code == 0, result
    folder = next(path.parent for path in Path(job.registry_path).rglob("adapter_config.json"))
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["target_modules"], sorted(config["target_parameters"])) == (["q_proj"], sorted(EXPERTS))
    learned = load_file(folder / "adapter_model.safetensors")
    of_experts = [name for name in learned if ".experts." in name and "lora_B" in name]
    assert len(of_experts) == 4
    assert all(float(learned[name].abs().max()) > 0 for name in of_experts)
    base = AutoModelForCausalLM.from_pretrained(job.model.path).eval()
    ids = torch.arange(2, 40)[None]
    with torch.no_grad():
        plain = base(input_ids=ids).logits
        read = PeftModel.from_pretrained(base, folder).eval()
        tuned = read(input_ids=ids).logits
        apart = tuned_by_hand(job.model.path, learned)(input_ids=ids).logits
    assert float((tuned - plain).abs().max()) > 1e-3
    assert torch.allclose(tuned, apart, atol=1e-4)


def tuned_by_hand(base, learned):
    """The model with each update added to its weight, by the arithmetic of the adapter's tensors alone."""
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    weights = dict(model.named_parameters())
    for name, first in learned.items():
        if "lora_A" not in name:
            continue
        second = learned[name.replace("lora_A", "lora_B")]
        place = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        if not place.endswith(("experts", "experts.base_layer")):
            weights[f"{place}.weight"].data += 2 * second @ first
            continue
        last = "gate_up_proj" if place.endswith("base_layer") else "down_proj"
        weight = weights[f"{place.removesuffix('.base_layer')}.{last}"]
        count = len(weight)
        for number in range(count):
            update = 2 * second[:, number::count] @ first.reshape(count, 4, -1)[number]
            weight.data[number] += update if update.shape == weight[number].shape else update.T
    return model


REFUSED = {
    "dropout": ({"lora": {"dropout": 0.1}}, "lora.dropout: PEFT has none for tensors of experts"),
    "DoRA": ({"lora": {"dora": True}}, "lora.dora: PEFT does not have it for tensors of experts"),
    "several GPUs": (
        {"training": {"dataParallel": 2, "gradientAccumulation": 1}},
        "tensors of experts need one GPU",
    ),
    "a name that is none": (
        {"lora": {"targetModules": ["experts.gate"]}},
        "are named experts.gate; try k_proj, o_proj, q_proj, v_proj, experts.down_proj, experts.gate_up_proj",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_peft_does_not_have_for_experts_is_refused_before_a_gpu_is_asked_for(job_on, case):
    changes, words = REFUSED[case]
    job = job_on("mixtral", **changes)
    with pytest.raises(StageFailure, match=re.escape(words)) as refused:
        check_modules(job, Path(job.model.path))
    assert refused.value.failure_class == FailureClass.BAD_INPUT


def test_a_name_of_both_means_the_layer(job_on):
    job = job_on("llama4_text", lora={"targetModules": ["down_proj"]})
    model = AutoModelForCausalLM.from_pretrained(job.model.path)
    assert (target_modules(model, job), target_parameters(model, job)) == (["down_proj"], [])
