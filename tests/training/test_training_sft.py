# SPDX-License-Identifier: Apache-2.0
"""All weights trained: what is published is a model as any program loads it."""

import json
import shutil
from pathlib import Path

import pytest
from tuneyard_api.pod_contract import PublishFacts, TrainFacts

torch = pytest.importorskip("torch")

from tuneyard_data.tokenization import TextTokenizer  # noqa: E402
from tuneyard_trainer.evaluation.generate import complete  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def base_in_bf16(tiny_llama, tmp_path):
    """The tiny model as models from a hub are: in bfloat16."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "half"
    shutil.copytree(tiny_llama, folder)
    AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16).save_pretrained(folder)
    (folder / "evaluation.json").write_text('{"of": "the base model"}')
    (folder / "LICENSE").write_text("terms")
    return folder


def test_a_whole_model_is_published_with_its_tokenizer_and_answers_as_it_was_measured(
    base_in_bf16, training_data, job_of, pods
):
    from transformers import AutoModelForCausalLM

    job = job_of(
        base_in_bf16, training_data(40), method="sft", training={"maxSteps": 30, "learningRate": 0.003}
    )
    for stage in ("prepare", "train", "publish"):
        code, result = pods.run(stage, job)
        assert code == 0, result.failure
    published = PublishFacts.model_validate(result.facts)
    folder = Path(published.path)
    names = {path.name for path in folder.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    } <= names
    assert "LICENSE" in names
    assert not {name for name in names if name.startswith(("adapter", "evaluation"))}
    assert (folder / "config.json").read_text() == (base_in_bf16 / "config.json").read_text()

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert next(model.parameters()).dtype == torch.bfloat16
    base = AutoModelForCausalLM.from_pretrained(base_in_bf16).state_dict()
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, base[name])]
    assert "model.embed_tokens.weight" in changed
    assert len(changed) > len(base) // 2

    samples = [
        json.loads(line) for line in (pods.workspace / "evaluation/samples.jsonl").read_text().splitlines()
    ]
    tokenizer = TextTokenizer(folder)
    answers = complete(
        # Measured in float32, as it was trained.
        model.float(),
        [tokenizer.prompt_ids(sample["prompt"], has_special_tokens=False) for sample in samples],
        stop_ids=tokenizer.stop_ids,
        max_new_tokens=6,
        decode=tokenizer.decode,
        device=torch.device("cpu"),
    )
    assert answers == [sample["tuned"] for sample in samples]
    facts = TrainFacts.model_validate_json(
        json.dumps(json.loads((pods.workspace / "results/train.json").read_text())["facts"])
    )
    assert facts.evaluation.tuned.loss < facts.evaluation.base.loss
    card = (folder / "README.md").read_text()
    for words in ("All weights of `half`", "library_name: transformers", "tags: [sft", published.digest):
        assert words in card
    assert "target modules" not in card


def test_base_is_measured_before_its_weights_change_also_by_a_second_attempt(
    tiny_llama, training_data, job_of, pods
):
    job = job_of(tiny_llama, training_data(40), method="sft", training={"learningRate": 0.003})
    assert pods.run("prepare", job)[0] == 0
    first = TrainFacts.model_validate(pods.run("train", job)[1].facts)
    (pods.workspace / "results/train.json").unlink()
    second = TrainFacts.model_validate(pods.run("train", job)[1].facts)
    assert second.resumed_from_step == first.steps
    assert second.evaluation == first.evaluation


def test_a_whole_model_keeps_the_tensors_that_are_not_trained(tmp_path):
    """DeepSeek V3 corrects its experts by a buffer, which is a part of its state."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from tuneyard_api.registry import StoredBase
    from tuneyard_trainer.model.loading import save_tuned
    from tuneyard_trainer.model.world import World

    small = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8}
    parts = {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "n_shared_experts": 1}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    groups = {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
    config = AutoConfig.for_model("deepseek_v3", **small, **heads, **parts, **experts, **groups)
    model = AutoModelForCausalLM.from_config(config)
    name = next(name for name, _ in model.named_buffers() if name.endswith("e_score_correction_bias"))
    correction = torch.tensor([1.0, 2.0, 3.0, 4.0])
    model.get_buffer(name).copy_(correction)
    model.save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    save_tuned(base, tmp_path / "base", tmp_path / "tuned", StoredBase(name="base"), World())
    state = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned").state_dict()
    assert set(state) == set(model.state_dict())
    assert torch.equal(state[name], correction)
